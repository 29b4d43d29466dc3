"""Joules that this process takes: of GPUs by NVML, of the CPU by RAPL or, where that cannot be read, estimated."""

import concurrent.futures
import logging
import os
import pathlib
import shutil

# How often power is measured; what GPUs and RAPL count themselves is read then, too.
MEASURING_SECONDS = 5
JOULES_PER_KWH = 3.6e6
RAPL = "/sys/class/powercap"


class EnergyMeter:
    """Counts joules from its making on, with CodeCarbon and without a network.

    Counted are CPU and GPUs. Memory is left out: CodeCarbon takes it for a constant that depends on the machine alone.
    """

    def __init__(self):
        if shutil.which("scontrol") is None:
            # In a container of a Slurm job CodeCarbon would ask a program that is not there, and never start.
            os.environ.pop("SLURM_JOB_ID", None)
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output import BaseOutput

        # It greets on the standard error before it has read its `log_level`.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)

        class Latest(BaseOutput):
            """Holds what was measured last."""

            total = None

            def out(self, total, delta):
                self.total = total

        self._latest = Latest()
        self._tracker = OfflineEmissionsTracker(
            # Says how much CO2 a kWh makes, which is not used.
            country_iso_code="USA",
            tracking_mode="process",
            measure_power_secs=MEASURING_SECONDS,
            output_methods=[],
            output_handlers=[self._latest],
            allow_multiple_runs=True,
            log_level="critical",
        )
        # Asking the machine what it is takes more than a second, in which others need not wait.
        executor = concurrent.futures.ThreadPoolExecutor(1)
        self._started = executor.submit(self._tracker.start)
        executor.shutdown(wait=False)

    @property
    def joules(self) -> float:
        """Joules of CPU and GPUs since the meter was made; reading takes milliseconds."""
        total = self._total()
        return JOULES_PER_KWH * (total.cpu_energy + total.gpu_energy)

    def __enter__(self) -> "EnergyMeter":
        return self

    def __exit__(self, *error) -> None:
        """Ends the threads that measure."""
        self._started.result()
        self._tracker.stop()

    def _total(self):
        self._started.result()
        self._tracker.flush()
        return self._latest.total

    def describe(self) -> dict[str, str | None]:
        """Describes the meter behind the joules of each part."""
        total = self._total()
        counters = pathlib.Path(RAPL).glob("*/energy_uj") if pathlib.Path(RAPL).is_dir() else ()
        by_rapl = any(os.access(counter, os.R_OK) for counter in counters)
        return {
            "cpu": "RAPL" if by_rapl else "estimated from the load",
            "cpu_model": total.cpu_model,
            "gpu": "NVML" if total.gpu_count else None,
            "gpu_model": total.gpu_model or None,
        }

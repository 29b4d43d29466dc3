"""`python -m tuner.trial FOLDER`: one run of a search, in a process of its own; `tuner.search` starts it.

The folder holds config.json. A run that was killed goes on from its last epoch. What it measured is written to
record.json when it is done:

    metrics      of the best epoch: epoch, val_mse, val_mse_<source>, val_si_sdr
    segment_mse  [num_segments][num_sources], mean squared errors of the fixed validation segments
    baselines    metrics of silence and of mixture/num_sources
    costs        parameters, gflop_per_second (of audio), receptive_field_ms (null: all of the song),
                 planned_training_bytes, peak_bytes, training_seconds, training_joules, and for each second of
                 separated audio separation_seconds and separation_joules
    seconds      that all of it took, without the start of the process
"""

import argparse
import contextlib
import errno
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import CommandParser, run_command
from sepnet.models.keras_settings import load_keras
from tuner.searching.records import RECORD
from tuner.searching.workers import NO_SPACE_STATUS, end_with_parent

NO_SPACE = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status if there is no room on the disk, else ends the process.

    Raises:
        UserError: the songs cannot be used, or training fails; see `sepnet.training.fit.fit`.
    """
    folder = _parser().parse_args(argv).folder
    end_with_parent()
    try:
        _run(folder)
    except Exception as error:
        # Python, HDF5 and TensorFlow have exceptions of their own for it, all with the system's words.
        if not any(words in str(error) for words in NO_SPACE):
            raise
        with contextlib.suppress(OSError):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return NO_SPACE_STATUS
    sys.stdout.flush()
    sys.stderr.flush()
    # Skip the interpreter's shutdown, which takes seconds; all is on the disk.
    os._exit(0)


def _run(folder: pathlib.Path) -> None:
    load_keras()
    from pipelines.files import folder_lock, whole_file
    from sepnet.config.run_folder import Run
    from sepnet.config.songs import config_tracks
    from sepnet.measures.memory import counted_device
    from sepnet.planning.costs import count_costs
    from sepnet.training.fit import fit
    from sepnet.training.measure import measure_run

    begin, run = time.monotonic(), Run(folder)
    # Where the search was killed, the process that it had started may still be about to end.
    with folder_lock(folder):
        config = run.config
        tracks = config_tracks(config.data)
        sample_rate = tracks["train"][0].sample_rate
        result = fit(config, tracks, run=run, resume=run.last_state.exists())
        measured = measure_run(run, config, result.validation, sample_rate)
        planned = count_costs(config, sample_rate, counted_device())
        record = _record(run.summary, measured, planned, sample_rate)
        with whole_file(folder / RECORD) as temporary:
            temporary.write_text(json.dumps({**record, "seconds": time.monotonic() - begin}))


def _record(summary: Mapping[str, Any], measured: Mapping[str, Any], planned, sample_rate: int) -> dict:
    """The figures of a trial's run, of what was measured of its model, and of its plan."""
    samples, meter = planned.receptive_field_samples, summary["meter"]
    costs = {
        **summary["costs"],
        **{name: value for name, value in measured.items() if name != "segment_mse"},
        "gflop_per_second": planned.flops_per_second / 1e9,
        "receptive_field_ms": 1000 * samples / sample_rate if samples else None,
        "planned_training_bytes": planned.training_bytes,
    }
    hardware = {
        "machine": summary["machine"],
        "num_cores": summary["num_cores"],
        "cpu": meter["cpu_model"],
        "gpu": meter["gpu_model"],
    }
    return {
        **{name: summary[name] for name in ("metrics", "sources", "baselines", "versions", "seed")},
        "segment_mse": measured["segment_mse"],
        "costs": costs,
        "meter": {part: meter[part] for part in ("cpu", "gpu")},
        "hardware": {name: str(value) for name, value in hardware.items()},
    }


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m tuner.trial", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("folder", type=pathlib.Path, help="searches/NAME/trial_N/seed_S")
    return parser


if __name__ == "__main__":
    run_command(main)

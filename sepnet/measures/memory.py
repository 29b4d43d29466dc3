"""Sizes of memory as text, and the device whose memory counts."""

import re

from pipelines.errors import UserError

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of "16GB" or "16 GiB".

    Raises:
        UserError: no number above 0 with a unit.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?) ?([A-Za-z]+)", text)
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if not match or match[2].lower() not in units or not float(match[1]):
        raise UserError(f"--memory is {text!r}; give a number and one of {', '.join(UNITS)}, such as 16GB")
    return round(float(match[1]) * units[match[2].lower()])


def counted_device() -> str:
    """The device whose memory training takes: "gpu" where there is one, else "cpu"."""
    import tensorflow as tf

    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def available_bytes(device: str) -> int:
    """The memory of this machine, or of its first GPU.

    Raises:
        UserError: the GPU does not tell.
    """
    if device == "cpu":
        import psutil

        return psutil.virtual_memory().total
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[0]
    sizes = _gpu_bytes(tf.config.experimental.get_device_details(gpu).get("device_name"))
    if not sizes:
        raise UserError("the memory of this GPU is not known; give it with --memory, such as --memory 16GB")
    # CUDA may number GPUs otherwise than NVML.
    return min(sizes)


def _gpu_bytes(name: str | None) -> list[int]:
    """The memory of every GPU of a name, by NVML, which takes none of it; empty where NVML does not tell."""
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetMemoryInfo(gpu).total for gpu in gpus if pynvml.nvmlDeviceGetName(gpu) == name]
    except pynvml.NVMLError:
        return []

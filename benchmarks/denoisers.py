"""noisereduce and RNNoise at work on mixtures; run by `benchmarks.peers`.

    python -m benchmarks.denoisers FOLDER SAMPLE_RATE

reads the arrays `FOLDER/mixtures/*.npy` and writes `FOLDER/METHOD/*.npy`, all float32 `[num_samples, num_channels]`.
"""

import ctypes
import functools
import pathlib
import sys

import noisereduce
import numpy as np
import soxr
from pyrnnoise import rnnoise

# By how much its output comes later than its input: a frame that it looks ahead, and one that overlaps.
RNNOISE_DELAY = 2 * rnnoise.FRAME_SIZE
# It takes floats of this scale.
RNNOISE_SCALE = 2.0**15


def main() -> None:
    """Does what the command says."""
    folder, sample_rate = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    for method, denoise in METHODS.items():
        (folder / method).mkdir()
        for path in sorted((folder / "mixtures").iterdir()):
            channels = np.load(path).T
            estimate = np.stack([denoise(channel, sample_rate) for channel in channels], axis=1)
            np.save(folder / method / path.name, estimate.astype(np.float32))


def gate_spectra(channel: np.ndarray, sample_rate: int, stationary: bool) -> np.ndarray:
    """noisereduce as it is by default, which takes the noise from the mixture itself."""
    return noisereduce.reduce_noise(channel, sample_rate, stationary=stationary)


def run_rnnoise(channel: np.ndarray, sample_rate: int) -> np.ndarray:
    """RNNoise with its own weights, at 48 kHz, without its delay."""
    audio = RNNOISE_SCALE * soxr.resample(channel, sample_rate, rnnoise.SAMPLE_RATE)
    padded = np.pad(audio, (0, RNNOISE_DELAY + -len(audio) % rnnoise.FRAME_SIZE)).astype(np.float32)
    state = rnnoise.create()
    for frame in padded.reshape(-1, rnnoise.FRAME_SIZE):
        pointer = frame.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        rnnoise.lib.rnnoise_process_frame(state, pointer, pointer)
    rnnoise.destroy(state)
    estimate = padded[RNNOISE_DELAY:][: len(audio)] / RNNOISE_SCALE
    # Resampling there and back may differ by one sample.
    estimate = soxr.resample(np.pad(estimate, (0, 1)), rnnoise.SAMPLE_RATE, sample_rate)
    return estimate[: len(channel)]


METHODS = {
    "noisereduce (stationary)": functools.partial(gate_spectra, stationary=True),
    "noisereduce": functools.partial(gate_spectra, stationary=False),
    "RNNoise": run_rnnoise,
}


if __name__ == "__main__":
    main()

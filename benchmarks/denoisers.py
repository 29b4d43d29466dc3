"""noisereduce and RNNoise at work on mixtures; run by `benchmarks.peers`.

    python -m benchmarks.denoisers FOLDER SAMPLE_RATE

reads the arrays `FOLDER/mixtures/*.npy` and writes `FOLDER/METHOD/*.npy`, all float32 `[num_samples, num_channels]`.
"""

import functools
import pathlib
import sys

import noisereduce
import numpy as np


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
    """RNNoise with its own weights at 48 kHz, its delay taken back."""
    raise NotImplementedError


METHODS = {
    "noisereduce, stationary": functools.partial(gate_spectra, stationary=True),
    "noisereduce, non-stationary": functools.partial(gate_spectra, stationary=False),
    "RNNoise": run_rnnoise,
}


if __name__ == "__main__":
    main()

"""The ideal ratio mask, made from the true stems: the best that masks could reach."""

from collections.abc import Mapping

import numpy as np

FRAME_LENGTH = 2048


def ideal_ratio_mask(mixture: np.ndarray, sources: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives every source its share of the mixture's STFT: its power over that of all sources, channel by channel.

    Hann windows of 2048 samples, half overlapping, as in SiSEC 2018, whose IRM2 this is (IRM1 takes magnitudes).

    Mixture, sources and what is returned are float32 `[num_samples, num_channels]`.

    Reference: Liutkus, Badeau, Richard 2011, "Gaussian processes for underdetermined source separation".
    """
    from scipy.signal import istft, stft

    num_samples = len(mixture)

    def spectrum(audio: np.ndarray) -> np.ndarray:
        # A song shorter than a window would get shorter windows.
        padded = np.pad(audio.astype(np.float64), ((0, max(FRAME_LENGTH - num_samples, 0)), (0, 0)))
        return stft(padded.T, nperseg=FRAME_LENGTH)[2]

    powers = {source: np.abs(spectrum(stem)) ** 2 for source, stem in sources.items()}
    # Where all are silent, the mask is zero.
    whole = sum(powers.values()) + np.finfo(np.float64).eps
    mixed = spectrum(mixture)
    return {
        source: istft(power / whole * mixed)[1].T[:num_samples].astype(np.float32) for source, power in powers.items()
    }

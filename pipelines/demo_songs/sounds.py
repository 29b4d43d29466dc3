"""Tones, noises and effects that the instruments of the demo songs are made of. Mono is `[num_samples]` float32."""

import numpy as np

SAMPLE_RATE = 22_050
HOP = 64  # samples between two control points


def hertz(note: float | np.ndarray) -> float | np.ndarray:
    """Returns the frequency of a MIDI note."""
    return 440.0 * 2.0 ** ((np.asarray(note) - 69) / 12)


def num_points(num_samples: int) -> int:
    """Returns how many control points cover so many samples."""
    return -(-num_samples // HOP) + 1


def upsample(points: np.ndarray) -> np.ndarray:
    """Draws straight lines through control points: `[num_points]` to `[(num_points - 1) * HOP]`, of the same dtype."""
    ramp = np.arange(HOP, dtype=points.dtype) / HOP
    return (points[:-1, None] + np.diff(points)[:, None] * ramp).reshape(-1)


def additive(frequency_hz: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Adds up harmonics whose pitch and amplitudes glide.

    Args:
        frequency_hz: `[num_points]`, the fundamental at control points `HOP` samples apart.
        amplitudes: `[num_harmonics, num_points]`; what lies above 0.45 of the sample rate is left out.

    Returns:
        `[(num_points - 1) * HOP]` float32.
    """
    turns = np.cumsum(upsample(frequency_hz)) / SAMPLE_RATE
    phase = (2 * np.pi * (turns % 1)).astype(np.float32)
    # sin((k + 1) x) = 2 cos(x) sin(k x) - sin((k - 1) x): one sine and one cosine serve all harmonics.
    twice_cosine, previous, current = 2 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = np.zeros_like(phase)
    for harmonic, amplitude in enumerate(amplitudes, start=1):
        audible = amplitude * (harmonic * frequency_hz < 0.45 * SAMPLE_RATE)
        if not audible.any():
            break
        total += upsample(audible.astype(np.float32)) * current
        previous, current = current, twice_cosine * current - previous
    return total


def decay(num_samples: int, seconds: float) -> np.ndarray:
    """Returns an exponential that falls by 60 dB in `seconds`."""
    return np.exp(np.arange(num_samples, dtype=np.float32) * np.float32(-6.9 / (seconds * SAMPLE_RATE)))


def fade(sound: np.ndarray, attack_seconds: float, release_seconds: float) -> np.ndarray:
    """Fades a sound in and out, in place, and returns it."""
    attack = min(max(1, int(attack_seconds * SAMPLE_RATE)), len(sound))
    release = min(max(1, int(release_seconds * SAMPLE_RATE)), len(sound))
    sound[:attack] *= np.linspace(0, 1, attack, dtype=np.float32)
    sound[-release:] *= np.linspace(1, 0, release, dtype=np.float32)
    return sound


def noise(rng: np.random.Generator, num_samples: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Returns noise with soft edges at `low_hz` and `high_hz`, of RMS 1."""
    fft_length = 1 << (num_samples - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(fft_length, dtype=np.float32))
    frequency_hz = np.fft.rfftfreq(fft_length, 1 / SAMPLE_RATE) + 1e-3
    spectrum /= np.sqrt((1 + (low_hz / frequency_hz) ** 6) * (1 + (frequency_hz / high_hz) ** 6))
    sound = np.fft.irfft(spectrum)[:num_samples].astype(np.float32)
    return sound / max(rms(sound), 1e-9)


def rms(sound: np.ndarray) -> float:
    """Returns the root of the mean square over all samples and channels."""
    return float(np.sqrt(np.mean(np.square(sound), dtype=np.float64)))


def place(track: np.ndarray, sound: np.ndarray, start: int) -> None:
    """Adds a sound to a track, in place, from sample `start` on; what runs over the end is cut."""
    end = min(start + len(sound), len(track))
    if end > start:
        track[start:end] += sound[: end - start]


def pan(sound: np.ndarray, position: float) -> np.ndarray:
    """Places mono in the stereo image: -1 is left, 0 the middle, 1 right. Returns `[num_samples, 2]`."""
    angle = (position + 1) * np.pi / 4
    return sound[:, None] * np.array([np.cos(angle), np.sin(angle)], np.float32)


def delay(sound: np.ndarray, num_samples: int) -> np.ndarray:
    """Returns a sound of the same length that starts `num_samples` later."""
    return np.concatenate([np.zeros_like(sound[:num_samples]), sound[: len(sound) - num_samples]])


def reverb(sound: np.ndarray, seconds: float) -> np.ndarray:
    """Returns the echo of a room alone, from three feedback combs on either side; `[num_samples, 2]` in and out.

    A comb repeats its input every few hundredths of a second, each time weaker; it is computed one repeat at a time.
    """
    echo = np.zeros_like(sound)
    for channel, comb_seconds in enumerate(((0.0297, 0.0371, 0.0437), (0.0313, 0.0353, 0.0451))):
        for length in (int(comb * SAMPLE_RATE) for comb in comb_seconds):
            repeats = np.zeros((-(-len(sound) // length) + 1, length), np.float32)
            repeats.reshape(-1)[length : length + len(sound)] = sound[:, channel]
            gain = np.float32(10 ** (-3 * length / SAMPLE_RATE / seconds))
            for repeat in range(1, len(repeats)):
                repeats[repeat] += gain * repeats[repeat - 1]
            echo[:, channel] += repeats.reshape(-1)[: len(sound)]
    return echo / 3

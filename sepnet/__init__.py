"""Deep U-Nets for audio source separation, on the waveform and on the spectrogram."""

__version__ = "0.1.0"

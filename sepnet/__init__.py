"""Deep U-Nets for audio source separation, on the waveform and on the spectrogram."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepnet.separation.separator import Separator

__all__ = ["Separator"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # Loaded on use, so that every command's `--help` stays quick.
    if name == "Separator":
        from sepnet.separation.separator import Separator

        return Separator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

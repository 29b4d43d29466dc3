"""Deep U-Nets for audio source separation, on the waveform and on the spectrogram."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepnet.separation.remote_model import RemoteModel
    from sepnet.separation.separator import Separator

__all__ = ["RemoteModel", "Separator"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # Loaded on use, so that every command's `--help` stays quick.
    if name == "Separator":
        from sepnet.separation.separator import Separator

        return Separator
    if name == "RemoteModel":
        from sepnet.separation.remote_model import RemoteModel

        return RemoteModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

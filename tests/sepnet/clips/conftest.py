"""Real stems, which the tests of clips share."""

import pathlib

import numpy as np
import pytest

from pipelines.audio.reading import read_streams


def read_stems(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The four stems of a `.stem.mp4` by source, each `[num_samples, num_channels]`."""
    streams = [np.concatenate(blocks) for blocks in zip(*read_streams(path), strict=True)]
    return dict(zip(("drums", "bass", "other", "vocals"), streams[1:], strict=True))


@pytest.fixture(scope="session")
def stems(real_track):
    """The stems of a real song, 6 s at 44.1 kHz in stereo."""
    return read_stems(real_track)

"""Real stems, which the tests of clips share."""

import numpy as np
import pytest

from pipelines.audio.reading import read_streams


@pytest.fixture(scope="session")
def stems(real_track):
    """The four stems of a real song by source, 6 s at 44.1 kHz in stereo."""
    blocks = list(read_streams(real_track))
    streams = [np.concatenate([block[place] for block in blocks]) for place in range(len(blocks[0]))]
    return dict(zip(("drums", "bass", "other", "vocals"), streams[1:], strict=True))

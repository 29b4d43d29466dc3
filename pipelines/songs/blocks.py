"""The stems of a song, read in equal steps."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.errors import UserError
from pipelines.songs.layouts import STEM_STREAMS, Song


def song_blocks(song: Song, stems: Sequence[str], note: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
    """Yields a song's stems in equal steps, from a `.stem.mp4` or from its folder.

    Args:
        song: the song to read.
        stems: names of the files to read; a `.stem.mp4` gives all.
        note: is called at the end for each file of which something could not be decoded.

    Yields:
        Samples by stem, float32 `[num_samples, num_channels]`, full scale ±1; the same `num_samples` for all.

    Raises:
        SongError: a file cannot be decoded or breaks off, or the stems differ in length.
    """
    with song.named_in_errors():
        if song.is_stem_file:
            for block in reading.read_streams(song.path, note=note):
                yield dict(zip(STEM_STREAMS, block, strict=True))
            return
        files = song.files()
        readers = [reading.read_blocks(files[stem], note=note) for stem in stems]
        for blocks in itertools.zip_longest(*readers):
            if len({samples is not None and len(samples) for samples in blocks}) > 1:
                raise UserError("its stems have different lengths when they are decoded; make them equal")
            yield dict(zip(stems, blocks, strict=True))

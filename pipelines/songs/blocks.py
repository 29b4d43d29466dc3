"""The stems of a song, read in equal steps."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.errors import UserError
from pipelines.songs.layouts import STEM_STREAMS, Song, SongError


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
    try:
        if song.is_stem_file:
            for block in reading.read_streams(song.path, note=note):
                yield dict(zip(STEM_STREAMS, block, strict=True))
            return
        files = song.files()
        readers = {stem: reading.read_blocks(files[stem], note=note) for stem in stems}
        while True:
            block = {stem: next(reader, None) for stem, reader in readers.items()}
            if all(samples is None for samples in block.values()):
                return
            if len({samples is not None and len(samples) for samples in block.values()}) > 1:
                raise UserError("its stems have different lengths when they are decoded; make them equal")
            yield block
    except SongError:
        raise
    except UserError as error:
        raise SongError(f"song {song.name!r}: {error}") from error

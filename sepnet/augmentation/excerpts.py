"""Songs cut into excerpts as long as a clip, with what a model makes of them, as a stream."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from pipelines.audio.reading import open_audio
from pipelines.captioned.songs import CaptionedSong
from sepnet.clips.make import Excerpt
from sepnet.separation.separator import Separator


@dataclasses.dataclass(frozen=True)
class Placed:
    """An excerpt, and where in its song it begins."""

    start_seconds: float
    excerpt: Excerpt


def excerpts(
    song: CaptionedSong,
    separator: Separator,
    clip_seconds: float,
    check: Callable[[int, int], None],
    note: Callable[[str], None],
) -> Iterator[Placed]:
    """Separates a song and yields its excerpts in order.

    What is left at the end, shorter than a clip, is in none; of a song that is shorter than a clip it is the only one.
    Memory does not grow with the song.

    Args:
        song: of a collection.
        separator: of a model.
        clip_seconds: length of an excerpt.
        check: is called with the rate and the number of channels before the song is separated.
        note: is called at the end if something could not be decoded, or was passed over.

    Raises:
        UserError: the song cannot be read to its end, or not separated; or what `check` raises.
    """
    with song.open_local() as path, open_audio(path, song.id) as recording:
        sample_rate, num_channels = recording.info.sample_rate, recording.info.num_channels
        check(sample_rate, num_channels)
        size = round(clip_seconds * sample_rate)
        empty = np.zeros((0, num_channels), np.float32)
        # Stems come out after more of the mixture was read than they cover.
        waiting = {"": empty, **dict.fromkeys(separator.sources, empty)}

        def listened() -> Iterator[np.ndarray]:
            for block in recording.blocks():
                waiting[""] = np.concatenate([waiting[""], block])
                yield block

        def cut(start: int, length: int) -> Placed:
            mixture, *estimates = (held[:length] for held in waiting.values())
            for name, held in waiting.items():
                waiting[name] = held[length:]
            stems = dict(zip(separator.sources, estimates, strict=True))
            return Placed(start / sample_rate, Excerpt(song.id, song.caption, sample_rate, mixture, stems))

        start = 0
        for stems in separator.separate_blocks(listened(), sample_rate, num_channels):
            for source, block in stems.items():
                waiting[source] = np.concatenate([waiting[source], block])
            while len(waiting[separator.sources[0]]) >= size:
                yield cut(start, size)
                start += size
        if not start:
            yield cut(0, len(waiting[""]))
        if recording.remarks():
            note(recording.remarks())

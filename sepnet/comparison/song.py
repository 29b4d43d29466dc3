"""Models side by side on one song: their errors, a picture and a page."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.errors import UserError, one_line
from pipelines.files import check_writable, whole_file
from pipelines.progress import progress_bar
from pipelines.songs.layouts import Song, Track, read_track
from pipelines.tables import print_table
from sepnet.comparison.song_page import comparison_page
from sepnet.comparison.song_pictures import draw_song
from sepnet.comparison.stretch import Comparison, stretch_of
from sepnet.config.data import Data
from sepnet.config.songs import config_tracks, data_of, data_root, read_song
from sepnet.export.saved_model import read_models
from sepnet.separation.separator import Separator

BLOCK_SECONDS = 5


def compare_models(
    folders: Sequence[pathlib.Path],
    song: str,
    data: Data,
    picture: pathlib.Path,
    *,
    seconds: float,
    start_seconds: float | None = None,
) -> None:
    """Prints the errors of models on a stretch of a song; draws it, and writes a page beside the picture as .html.

    Args:
        folders: SavedModels, or one version of each.
        song: path of its folder, or its name in a data folder.
        data: folder in which names are looked for, and options of reading.
        picture: PNG to write.
        seconds: length of the stretch; a shorter song is taken whole.
        start_seconds: beginning of the stretch; None takes the loudest one with all sources heard.

    Raises:
        UserError: a model or the song cannot be used, or the picture cannot be written.
    """
    models, parts, others, num_channels = read_models(folders)
    data, parts = data_of(parts, others, num_channels, data)
    track = _find_track(song, data)
    check_writable(picture.parent)
    comparison = _compare(models, parts, track, seconds, start_seconds)
    page = picture.with_suffix(".html")
    with whole_file(picture) as temporary_picture, whole_file(page) as temporary_page:
        draw_song(temporary_picture, comparison)
        # A name may hold bytes that are no UTF-8.
        temporary_page.write_text(comparison_page(comparison), encoding="utf-8", errors="backslashreplace")
    title = one_line(f"mean squared error: {comparison.song}, {comparison.span}")
    rows = [(one_line(name), *errors) for name, *errors in comparison.error_rows()]
    print_table(("", "all", *comparison.sources), rows, title=title)
    print(f"picture: {picture}")
    print(f"page:    {page}")


def _find_track(song: str, data: Data) -> Track:
    """Finds a song by the path of its folder, or by its name in a data folder."""
    folder = pathlib.Path(os.path.expanduser(song))
    if data.data is not None or not folder.is_dir():
        tracks = [track for split in config_tracks(data).values() for track in split if not track.is_recording]
        found = [track for track in tracks if track.name == song]
        if found:
            return found[-1]
        if not folder.is_dir():
            names = ", ".join(repr(track.name) for track in tracks[:3])
            raise UserError(
                f"no folder {song}, and no song of that name under {data_root(data)}, which has {names}, ...; "
                "give --song a folder of stems, or --data and a name"
            )
    for name in ("sample_rate", "snr_db", "skip_bad"):
        if getattr(data, name) != getattr(Data(), name):
            raise UserError(
                f"--{name.replace('_', '-')} is for songs of --data, and {song} is read as it is; leave it out"
            )
    return read_track(Song(folder.resolve().name, "test", folder), data.stems, reading.measure)


def _compare(
    models: Mapping[str, pathlib.Path],
    parts: Mapping[str, Sequence[str]],
    track: Track,
    seconds: float,
    start_seconds: float | None,
) -> Comparison:
    """Separates a song with each model, as far as the end of the stretch."""
    rate = track.sample_rate
    mixture, sources = read_song(track, parts)
    if start_seconds is not None and round(start_seconds * rate) >= len(mixture):
        raise UserError(f"--start is {start_seconds:g} s, and {track.name!r} ends after {len(mixture) / rate:.1f} s")
    stretch = stretch_of(sources, seconds, rate, start_seconds)
    estimates = {name: _separate(name, model, mixture[: stretch.stop], rate) for name, model in models.items()}
    return Comparison(
        track.name,
        stretch.start / rate,
        rate,
        mixture[stretch],
        {name: stem[stretch] for name, stem in sources.items()},
        {name: {source: stem[stretch] for source, stem in stems.items()} for name, stems in estimates.items()},
    )


def _separate(name: str, model: pathlib.Path, mixture: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
    separator = Separator(model)
    size = BLOCK_SECONDS * sample_rate
    with progress_bar(name, total=len(mixture) / sample_rate, unit="s of audio") as advance:

        def blocks():
            for first in range(0, len(mixture), size):
                block = mixture[first : first + size]
                yield block
                advance(len(block) / sample_rate)

        stems = list(separator.separate_blocks(blocks(), sample_rate, mixture.shape[1]))
    return {source: np.concatenate([block[source] for block in stems]) for source in separator.sources}

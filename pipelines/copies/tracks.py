"""From a folder of songs to tracks that can be streamed: found, checked, and converted once if need be."""

import pathlib
from collections.abc import Sequence

from pipelines.copies import make
from pipelines.errors import UserError
from pipelines.songs.layouts import STEM_STREAMS, ProbeIndex, SongError, Track, data_folder, find_songs, read_track


def load_tracks(
    root: pathlib.Path, *, stems: Sequence[str], sample_rate: int | None = None, skip_bad: bool = False
) -> dict[str, list[Track]]:
    """Loads the tracks of every split, all of one sample rate.

    Songs that cannot be streamed as they are (`.stem.mp4`, other encodings than 16-bit WAV or FLAC, another rate
    than the one asked for) are converted once, into a copy under the user's cache folder.

    Args:
        root: folder of songs, see `pipelines.songs.layouts` for the layouts, or `musdb18-7s` for musdb's preview.
        stems: names of the stems that every song must hold, two or more.
        sample_rate: Hz; None takes the songs' own rate, which must then be the same for all.
        skip_bad: leaves songs that cannot be used out, and lists them, instead of raising.

    Returns:
        Tracks by split: "train", "valid" and "test"; a split may be empty.

    Raises:
        UserError: no song was found, a song cannot be used (the message names the first and counts the rest), or
            the songs' rates differ and none was asked for.
    """
    root = data_folder(root)
    if any(song.is_stem_file for song in find_songs(root)):
        unknown = [stem for stem in stems if stem not in STEM_STREAMS]
        if unknown:
            raise UserError(
                f"the .stem.mp4 songs under {root} hold {', '.join(STEM_STREAMS)}, not {', '.join(unknown)}; "
                "choose among these with --sources"
            )
        root = make.prepared_copy(root, sample_rate=sample_rate, skip_bad=skip_bad)
    tracks, errors = _read_tracks(root, stems, skip_bad)
    rates = sorted({track.sample_rate for track in tracks})
    if sample_rate is None and len(rates) > 1:
        listed = " and ".join(f"{rate} Hz" for rate in rates)
        raise UserError(f"the songs under {root} have different sample rates ({listed}); choose one with --sample-rate")
    if any(not track.streamable for track in tracks) or (sample_rate is not None and rates != [sample_rate]):
        root = make.prepared_copy(root, sample_rate=sample_rate, skip_bad=skip_bad)
        tracks, errors = _read_tracks(root, stems, skip_bad)
    for error in errors:
        print(f"left out: {error}")
    return {split: [track for track in tracks if track.split == split] for split in ("train", "valid", "test")}


def _read_tracks(root: pathlib.Path, stems: Sequence[str], skip_bad: bool) -> tuple[list[Track], list[SongError]]:
    """Reads the tracks, and says what is wrong with the songs that were left out."""
    index = ProbeIndex(root)
    tracks, errors = [], []
    for song in find_songs(root):
        try:
            tracks.append(read_track(song, stems, index.probe))
        except SongError as error:
            errors.append(error)
    index.save()
    make.refuse_errors(errors, root, skip_bad)
    if not tracks:
        raise UserError(f"no song under {root} can be used; `python -m pipelines.check {root}` says why")
    return tracks, errors

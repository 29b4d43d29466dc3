"""From a folder of songs, or recordings, to tracks that can be streamed: found, checked, and converted if need be."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

from pipelines.copies import make
from pipelines.copies.mixtures import fixed_mixtures
from pipelines.errors import UserError
from pipelines.songs.layouts import (
    ProbeIndex,
    Song,
    SongError,
    Track,
    check_command,
    data_folder,
    find_songs,
    read_track,
)
from pipelines.songs.recordings import SourceFile, find_recordings, same_content

# Of mixtures of recordings, where nothing else is asked for.
SNR_DB = (-5.0, 20.0)


def load_tracks(
    root: pathlib.Path,
    *,
    stems: Sequence[str],
    sample_rate: int | None = None,
    skip_bad: bool = False,
    num_channels: int = 2,
    snr_db: tuple[float, float] | None = None,
    num_first: int = 1,
) -> dict[str, list[Track]]:
    """Loads the tracks of every split, all of one sample rate.

    Songs that cannot be streamed as they are (`.stem.mp4`, other encodings than 16-bit WAV or FLAC, another rate
    than the one asked for) are converted once, into a copy under the user's cache folder. So are recordings; of those
    that are held out, mixtures are made there, which are songs like any other.

    Args:
        root: folder of songs, see `pipelines.songs.layouts` for the layouts, or `musdb18-7s` for musdb's preview; or of
            recordings, see `pipelines.songs.recordings`.
        stems: names of the stems that every song must hold, two or more; of recordings, the folders.
        sample_rate: Hz; None takes the songs' own rate, which must then be the same for all.
        skip_bad: leaves songs that cannot be used out, and lists them, instead of raising.
        num_channels: of mixtures of recordings.
        snr_db: lowest and highest signal-to-noise ratio of mixtures of recordings; None takes `SNR_DB`.
        num_first: how many of the stems, from the first on, are the signal of that ratio.

    Returns:
        Tracks by split: "train", "valid" and "test"; a split may be empty. Of recordings, those in "train" hold one
        stem each.

    Raises:
        UserError: no song was found, a song cannot be used (the message names the first and counts the rest), or
            the songs' rates differ and none was asked for. A source has too few recordings, or shares one with another.
    """
    root = data_folder(root)
    if recordings := find_recordings(root, stems):
        tracks = _recording_tracks(root, recordings, stems, sample_rate, skip_bad)
        options = {"num_first": num_first, "num_channels": num_channels, "snr_db": snr_db or SNR_DB}
        mixtures = fixed_mixtures(root, tracks, stems=stems, **options)
        mixed, _ = _read_tracks(find_songs(mixtures), mixtures, stems, False, ProbeIndex(mixtures))
        return _by_split([*(track for track in tracks.values() if track.split == "train"), *mixed.values()])
    if made := next((song.made_stems for song in find_songs(root) if song.made_stems), None):
        unknown = [stem for stem in stems if stem not in made]
        if unknown:
            raise UserError(
                f"the songs under {root} hold {', '.join(made)}, not {', '.join(unknown)}; choose among these with "
                "--sources"
            )
    options = {"sample_rate": sample_rate, "skip_bad": skip_bad, "stems": stems}
    place = make.prepared_copy(root, **options) if made else root
    tracks, errors = _read_tracks(find_songs(place), root, stems, skip_bad, ProbeIndex(place))
    if _to_convert(tracks, root, sample_rate):
        place = make.prepared_copy(root, **options)
        tracks, errors = _read_tracks(find_songs(place), root, stems, skip_bad, ProbeIndex(place))
    for error in errors:
        print(f"left out: {error}")
    return _by_split(tracks.values())


def _by_split(tracks: Iterable[Track]) -> dict[str, list[Track]]:
    tracks = list(tracks)
    return {split: [track for track in tracks if track.split == split] for split in ("train", "valid", "test")}


def _recording_tracks(
    root: pathlib.Path,
    recordings: Sequence[SourceFile],
    stems: Sequence[str],
    sample_rate: int | None,
    skip_bad: bool,
) -> dict[SourceFile, Track]:
    """The tracks of recordings, in order, converted where they cannot be streamed as they are."""
    # What would have to be decoded is converted, which takes its length as it comes.
    index = ProbeIndex(root, may_guess=True)
    found, errors = _read_tracks(recordings, root, stems, skip_bad, index)
    if pair := next(same_content(found), None):
        raise UserError(f"{pair[0]} and {pair[1]} under {root} are the same file as two sources; keep one of the two")
    for error in errors:
        print(f"left out: {error}")
    converted = _to_convert(found, root, sample_rate)
    copies: dict[SourceFile, Track] = {}
    options = {"sample_rate": sample_rate, "skip_bad": skip_bad, "stems": stems, "probe": index.probe}
    for source in dict.fromkeys(recording.source for recording in converted):
        chosen = [recording for recording in converted if recording.source == source]
        copies |= make.converted_recordings(root, chosen, **options)
    left_out = {*converted} - {*copies}
    usable = {each: copies.get(each, track) for each, track in found.items() if each not in left_out}
    wanted, left = ({(each.source, each.split) for each in some} for some in (recordings, usable))
    for source, split in sorted(wanted - left):
        raise UserError(f"no recording of {source} for {split} under {root} can be used; add others")
    return usable


def _to_convert(tracks: Mapping[Song, Track], root: pathlib.Path, sample_rate: int | None) -> list[Song]:
    """The songs that cannot be streamed at the rate asked for.

    Raises:
        UserError: their rates differ, and none was asked for.
    """
    rates = sorted({track.sample_rate for track in tracks.values()})
    if sample_rate is None and len(rates) > 1:
        listed = " and ".join(f"{rate} Hz" for rate in rates)
        noun = next(iter(tracks)).noun
        raise UserError(
            f"the {noun}s under {root} have different sample rates ({listed}); choose one with --sample-rate"
        )
    return [
        song for song, track in tracks.items() if not (track.streamable and sample_rate in (None, track.sample_rate))
    ]


def _read_tracks(
    songs: Iterable[Song], root: pathlib.Path, stems: Sequence[str], skip_bad: bool, index: ProbeIndex
) -> tuple[dict[Song, Track], list[SongError]]:
    """Reads the tracks of songs under `root`, or of their copies, and says what is wrong with those that were left out.

    Of recordings, the stems are named in errors alone.
    """
    tracks, errors = {}, []
    try:
        for song in songs:
            try:
                tracks[song] = read_track(song, [song.source] if isinstance(song, SourceFile) else stems, index.probe)
            except SongError as error:
                errors.append(error)
    finally:
        # What has taken long to measure is not lost by Ctrl-C.
        index.save()
    make.refuse_errors(errors, root, stems, skip_bad)
    if not tracks:
        raise UserError(f"no song under {root} can be used; `{check_command(root, stems)}` says why")
    return tracks, errors

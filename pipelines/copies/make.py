"""Copies of songs that can be streamed, in 16-bit WAV: where the user wants them, or in the cache.

`.stem.mp4` files and folders of songs in any encoding become a tree like MUSDB18-HQ, with the split folders that the
songs lie in: `DEST/train/NAME/vocals.wav`. A song appears there whole or not at all, and beside its stems stands
`prepared.json`, which says what it was made from, so that a run that is started again goes on where the last one was.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence

from pipelines.audio import reading
from pipelines.cache import MOST_CHARACTERS, cache_path
from pipelines.copies.convert import FORMAT_VERSION, MANIFEST, Conversion, convert_song, probe_copy, probe_song
from pipelines.errors import UserError
from pipelines.files import folder_lock, remove_folder, remove_leftovers, stamp
from pipelines.progress import progress_bar
from pipelines.songs.layouts import (
    MIXTURE,
    SPLIT_FOLDERS,
    Probe,
    Song,
    SongError,
    Track,
    check_command,
    data_folder,
    find_songs,
    read_track,
    split_folder,
)
from pipelines.songs.recordings import SourceFile
from pipelines.workers import run_jobs

# Sizes in a WAV file are 32-bit numbers.
LARGEST_WAV_BYTES = 2**32 - 2**16
SHOWN_SONGS = 5


def prepare_songs(
    source: pathlib.Path,
    destination: pathlib.Path,
    *,
    sample_rate: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    is_cache: bool = False,
    stems: Sequence[str] = (),
) -> None:
    """Converts every song under `source` to 16-bit WAV under `destination`, and says what it does.

    Songs that a former run has made from the same files are kept, whatever ended that run. Samples beyond full
    scale are clipped, and the songs that had some are named.

    Args:
        source: folder of songs; see `pipelines.songs.layouts` for the layouts.
        destination: folder for the copy, made if need be; other folders in it are left alone.
        sample_rate: Hz of the copy; None keeps every song's own.
        workers: processes; None takes one for each CPU core.
        skip_bad: leaves songs that cannot be used out, and lists them, instead of raising.
        is_cache: songs that `source` has no more are removed, and nothing is said where nothing is to do.
        stems: names of those that are asked for: songs may lack others, and errors tell these.

    Raises:
        UserError: there is no song, one cannot be used, a copy would lie among the songs, the disk is too small, or
            `destination` cannot be written. What is seen before the start stops everything, and leaves old copies; what
            is met while decoding leaves finished songs.
    """
    source = data_folder(source).resolve()
    if destination.resolve() == source:
        raise UserError(f"the songs and their copy cannot share the folder {source}; choose another destination")
    songs = find_songs(source)
    targets = {song: destination / split_folder(song, source) / song.name for song in songs}
    _refuse_overlap(targets)
    options = {"sample_rate": sample_rate, "skip_bad": skip_bad, "is_cache": is_cache, "stems": stems}
    errors, is_new = _make(targets, source, destination, workers=workers, **options)
    if not is_new and not is_cache:
        print(f"all {len(songs) - len(errors)} songs are in {destination} already")
    for error in errors:
        print(f"left out: {error}")
    if len(errors) == len(songs):
        raise UserError(f"no song under {source} can be used; `{check_command(source, stems)}` says why")


def _refuse_overlap(targets: Mapping[Song, pathlib.Path]) -> None:
    """Raises a `UserError` where the copy of a song would take the place of a song, hold one, or lie in one."""
    originals = {entry.resolve() for entry in {entry for song in targets for entry in song.entries()}}
    around = {parent for original in originals for parent in original.parents}
    for song, target in targets.items():
        place = target.resolve()
        if place in around or not originals.isdisjoint((place, *place.parents)):
            raise UserError(f"{target}, for a copy of {song}, is a place of songs; choose another destination")


def _make(
    targets: Mapping[Song, pathlib.Path],
    source: pathlib.Path,
    destination: pathlib.Path,
    *,
    sample_rate: int | None,
    workers: int | None = None,
    skip_bad: bool = False,
    is_cache: bool = False,
    stems: Sequence[str] = (),
    probe: Probe = reading.measure,
) -> tuple[list[SongError], bool]:
    """Converts songs to their targets; returns what is wrong with those that were left out, and if any was converted.

    Arguments and errors are those of `prepare_songs`, and `probe`, which reads the header of a file.
    """
    with folder_lock(destination) as locked:
        if locked:
            for folder in {target.parent for target in targets.values()}:
                remove_leftovers(folder)
        conversions, bad = _plan(targets, sample_rate, stems, probe)
        refuse_errors([*bad.values()], source, stems, skip_bad)
        there = {manifest.parent for manifest in destination.rglob(MANIFEST)} if is_cache else set()
        for copy in there.difference(targets.values()) | {targets[song] for song in bad}:
            remove_folder(copy)
        if conversions:
            _announce(conversions, source, destination)
            bad |= _convert_all(conversions, workers, skip_bad)
        if not is_cache:
            _remove_from_other_splits({song: target for song, target in targets.items() if song not in bad})
    return [*bad.values()], bool(conversions)


def _remove_from_other_splits(targets: Mapping[Song, pathlib.Path]) -> None:
    """Removes the copies of songs that lay in another split when these were made, and says so."""
    for song, target in targets.items():
        for folder in {target.parents[1] / split for split in SPLIT_FOLDERS.values()} - {target.parent}:
            old = folder / target.name
            # Another song of that name is left alone.
            if (old / MANIFEST).is_file() and _read_manifest(old).get("source_files") == _stamp_files(song):
                remove_folder(old)
                print(f"removed {old}: {song} is in {target.parent.name} now")


def refuse_errors(errors: Sequence[SongError], root: pathlib.Path, stems: Sequence[str], skip_bad: bool) -> None:
    """Raises the first of the errors of songs under `root`, if there is one, unless bad songs are left out."""
    if errors and not skip_bad:
        more = f" ({len(errors) - 1} more: `{check_command(root, stems)}` lists them)" if errors[1:] else ""
        raise UserError(f"{errors[0]}; or leave it out with --skip-bad{more}")


def prepared_copy(root: pathlib.Path, *, sample_rate: int | None, skip_bad: bool, stems: Sequence[str]) -> pathlib.Path:
    """Returns a converted copy of the songs under `root`, kept in the cache folder and made or renewed if need be.

    It holds the songs that `root` has now, and no others. Arguments and errors are those of `prepare_songs`.
    """
    destination = _place_in_cache(root, sample_rate)
    options = {"sample_rate": sample_rate, "skip_bad": skip_bad, "is_cache": True, "stems": stems}
    prepare_songs(root.resolve(), destination, **options)
    return destination


def converted_recordings(
    root: pathlib.Path,
    recordings: Sequence[SourceFile],
    *,
    sample_rate: int | None,
    skip_bad: bool,
    stems: Sequence[str],
    probe: Probe,
) -> dict[SourceFile, Track]:
    """Returns the converted copies of recordings under `root`, kept in the cache folder and made or renewed if need be.

    Args:
        recordings: those of one source that have to be converted; the cache keeps no others.
        probe: reads the header of a file.

    Returns:
        Copies by recordings, without those that were left out. Other arguments and errors are those of `prepare_songs`.
    """
    destination = _place_in_cache(root, sample_rate, recordings[0].source)
    targets = {recording: destination / recording.name for recording in recordings}
    options = {"sample_rate": sample_rate, "skip_bad": skip_bad, "is_cache": True, "stems": stems, "probe": probe}
    errors, _ = _make(targets, root.resolve(), destination, **options)
    for error in errors:
        print(f"left out: {error}")
    copies = {each: dataclasses.replace(each, path=target / f"{each.source}.wav") for each, target in targets.items()}
    return {each: read_track(copy, [each.source], probe_copy) for each, copy in copies.items() if copy.path.is_file()}


def _place_in_cache(root: pathlib.Path, sample_rate: int | None, *more: str) -> pathlib.Path:
    """The folder for the copies of songs, or of recordings of one source."""
    root = root.resolve()
    rate = f"{sample_rate}hz" if sample_rate else "native"
    key = hashlib.sha256(json.dumps([str(root), rate, FORMAT_VERSION, *more]).encode()).hexdigest()[:8]
    return cache_path() / "prepared" / f"{'-'.join((root.name, *more))[:MOST_CHARACTERS]}-{rate}-{key}"


def _plan(
    targets: Mapping[Song, pathlib.Path], sample_rate: int | None, stems: Sequence[str], probe: Probe
) -> tuple[list[Conversion], dict[Song, SongError]]:
    """Says which songs are to be converted, and what is wrong with those that cannot be.

    Raises:
        UserError: a target was not made by this module, so that it must not be replaced.
    """
    conversions, errors = [], {}
    for song, target in targets.items():
        manifest = _read_manifest(target)
        try:
            source_files = _stamp_files(song)
            if manifest and _is_current(manifest, source_files, sample_rate):
                continue
            headers = probe_song(song, probe)
            rate = sample_rate or next(iter(headers.values())).sample_rate
            conversion = Conversion(song, target, source_files, headers, rate)
            if max(conversion.stem_bytes) > LARGEST_WAV_BYTES:
                raise SongError(f"{song} is too long for a WAV file of 4 GiB; cut it into parts")
            conversions.append(conversion)
        except SongError as error:
            errors[song] = error
    errors |= _incomplete([song for song in targets if song not in errors], stems)
    return [conversion for conversion in conversions if conversion.song not in errors], errors


def _incomplete(songs: Sequence[Song], asked_for: Sequence[str]) -> dict[Song, SongError]:
    """Says which songs lack a stem that most of them have, and that is asked for, if any are; converted ones, too."""
    stems = {song: {*(song.made_stems or song.files())} for song in songs}
    counts = collections.Counter(stem for held in stems.values() for stem in held if stem in (asked_for or held))
    del counts[MIXTURE]
    expected = {stem for stem, count in counts.items() if count * 2 > len(songs)}
    return {
        song: SongError(
            f"{song} lacks {', '.join(missing)}, which most songs have; it holds {', '.join(sorted(held))}: "
            f"rename a file to {missing[0]}.wav, or remove the song"
        )
        for song, held in stems.items()
        if (missing := sorted(expected - held))
    }


def _stamp_files(song: Song) -> dict[str, list[int]]:
    files = song.paths()
    folder = song.path if song.path.is_dir() else song.path.parent
    try:
        return {os.path.relpath(file, folder): stamp(file) for file in files}
    except OSError as error:
        raise SongError(f"{song}: cannot read {error.filename}: {error.strerror}") from error


def _read_manifest(target: pathlib.Path) -> dict:
    """Says what a folder was made from, nothing if there is none; raises a `UserError` if it was made by another."""
    try:
        if not target.exists():
            return {}
        manifest = dict(json.loads((target / MANIFEST).read_text()))
        if "format_version" not in manifest:
            raise ValueError("it says nothing of its format")
        return manifest
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{target} is there already and was not made by pipelines.prepare; choose another destination"
        ) from error


def _is_current(manifest: Mapping, source_files: Mapping[str, list[int]], sample_rate: int | None) -> bool:
    """True if a copy was made from these files at this rate."""
    return (
        manifest.get("format_version") == FORMAT_VERSION
        and manifest.get("source_files") == source_files
        and manifest.get("sample_rate") == (sample_rate or manifest.get("source_sample_rate"))
    )


def _announce(conversions: Sequence[Conversion], source: pathlib.Path, destination: pathlib.Path) -> None:
    """Says what will be done, or raises a `UserError` where the disk is too small for it."""
    seconds = sum(conversion.seconds for conversion in conversions)
    needed = sum(sum(conversion.stem_bytes) for conversion in conversions)
    # Old copies go one by one, as new ones are done.
    old = sum(file.stat().st_size for conversion in conversions for file in conversion.target.glob("*"))
    free, noun = shutil.disk_usage(destination).free + old, conversions[0].song.noun
    if needed > free:
        raise UserError(
            f"{destination} has {_gigabytes(free)} of free disk and the {noun}s take {_gigabytes(needed)}; make room, "
            "choose another destination, or a lower --sample-rate"
        )
    print(
        f"converting {len(conversions)} {noun}s, {seconds:,.0f} s of audio, from {source} to {destination}: "
        f"{_gigabytes(needed)} of 16-bit WAV",
        flush=True,
    )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB"


def _convert_all(conversions: Sequence[Conversion], workers: int | None, skip_bad: bool) -> dict[Song, SongError]:
    errors, clipped = {}, {}
    seconds = sum(conversion.seconds for conversion in conversions)
    start = time.monotonic()
    with (
        progress_bar("converting", total=seconds, unit="s") as advance,
        contextlib.closing(run_jobs(convert_song, conversions, advance=advance, workers=workers)) as results,
    ):
        for conversion, result in results:
            if isinstance(result, SongError) and skip_bad:
                errors[conversion.song] = result
                remove_folder(conversion.target)
            elif isinstance(result, SongError):
                raise UserError(f"{result}; or leave it out with --skip-bad. Finished songs are kept")
            elif isinstance(result, UserError):
                raise result
            else:
                counts, undecoded = result
                for text in undecoded:
                    reading.say(text)
                if any(counts.values()):
                    clipped[str(conversion.song)] = counts
    elapsed = time.monotonic() - start
    print(
        f"converted {len(conversions) - len(errors)} {conversions[0].song.noun}s in {elapsed:,.1f} s "
        f"({seconds / elapsed:,.0f} seconds of audio per second)"
    )
    for name in sorted(clipped)[:SHOWN_SONGS]:
        counts = ", ".join(f"{stem} {count}" for stem, count in clipped[name].items() if count)
        print(f"clipped: {name} had samples beyond full scale ({counts})")
    if len(clipped) > SHOWN_SONGS:
        print(f"clipped: {len(clipped) - SHOWN_SONGS} more; {MANIFEST} in each says how many samples")
    return errors

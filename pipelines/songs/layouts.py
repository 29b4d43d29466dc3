"""Songs on disk: which there are, to which split each belongs, and what their files hold.

The layouts of `pipelines.songs.LAYOUTS` are read, each with optional `train/`, `valid/` and `test/` folders (songs
outside of these are training songs).
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import pkgutil
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from pipelines.audio import reading
from pipelines.cache import cache_path
from pipelines.errors import UserError
from pipelines.files import stamp, whole_file, whole_folder
from pipelines.songs import LAYOUTS

MIXTURE = "mixture"
STEM_SUFFIX = ".stem.mp4"
# Stands for musdb's preview where a folder is expected.
PREVIEW = "musdb18-7s"
# The order of the streams in a MUSDB18 file.
STEM_STREAMS = (MIXTURE, "drums", "bass", "other", "vocals")
AUDIO_SUFFIXES = (".wav", ".flac")
SPLIT_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
WAV_ENCODINGS = frozenset({("WAV", "PCM_16"), ("WAVEX", "PCM_16")})
FLAC_ENCODINGS = frozenset({("FLAC", "PCM_16")})
VALIDATION_SHARE = 0.15
NO_SAMPLES = "no samples"
# Reads the header of a file.
Probe = Callable[[pathlib.Path], reading.AudioInfo]


@dataclasses.dataclass(frozen=True)
class Song:
    """A song of MUSDB18-HQ, or of any folder of songs: `NAME/vocals.wav`, `NAME/drums.flac`, a file for each stem.

    Songs of other layouts derive from it.

    Attributes:
        split: "train", "valid" or "test".
        path: in the split's folder; messages leave this folder out.
    """

    name: str
    split: str
    path: pathlib.Path
    # Of the class: the stems that a copy is made of, where they are no files of their own.
    made_stems: ClassVar[tuple[str, ...]] = ()
    # Of the class: by how many samples its stems may differ in length.
    tolerance_samples = 0
    # Of the class: what messages call one.
    noun = "song"

    def __str__(self) -> str:
        return f"{self.noun} {self.name!r}"

    @classmethod
    def find(cls, entries: Sequence[pathlib.Path], split: str) -> Iterator["Song"]:
        """Yields the songs of this layout among the entries of a split's folder."""
        return (cls(entry.name, split, entry) for entry in entries if _holds_audio(entry))

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the split in which it lies."""
        return self.path.parent

    def entries(self) -> list[pathlib.Path]:
        """The entries of the split's folder that hold it."""
        return [self.path]

    def paths(self) -> list[pathlib.Path]:
        """All files that it is read from."""
        return list(self.files().values())

    def files(self) -> dict[str, pathlib.Path]:
        """The song's audio files by stem ("vocals", "mixture"); empty where there are `made_stems`.

        Raises:
            SongError: the song's folder cannot be read, or has two files for one stem.
        """
        with self.named_in_errors():
            paths = [path for path in list_folder(self.path) if path.suffix.lower() in AUDIO_SUFFIXES]
        files: dict[str, pathlib.Path] = {}
        for path in paths:
            other = files.setdefault(path.stem, path)
            if other != path:
                raise SongError(f"{self} has {other.name} and {path.name}; keep one of the two")
        return files

    def headers(self, probe: Probe, stems: Sequence[str] | None = None) -> dict[str, reading.AudioInfo]:
        """The headers of its stems, those of `made_stems` or of its files; of files no others than `stems`, if given.

        Raises:
            SongError: a file cannot be read, or lacks a stem of `made_stems`.
        """
        files = self.files()
        with self.named_in_errors():
            return {stem: probe(files[stem]) for stem in (files if stems is None else stems) if stem in files}

    def blocks(self, stems: Sequence[str], note: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
        """Yields its stems in equal steps.

        Args:
            stems: names of the files to read; of `made_stems` all come.
            note: is called at the end for each file of which something could not be decoded.

        Yields:
            Samples by stem, float32 `[num_samples, num_channels]`, full scale ±1; the same `num_samples` for all.

        Raises:
            SongError: a file cannot be decoded or breaks off, or the stems differ in length.
        """
        with self.named_in_errors():
            files = self.files()
            yield from blocks_in_step({stem: files[stem] for stem in stems}, note)

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Turns errors about files into a `SongError`, which names the song."""
        try:
            yield
        except SongError:
            raise
        except UserError as error:
            raise SongError(f"{self}: {error}") from error


class StemFile(Song):
    """A song of MUSDB18: `NAME.stem.mp4`, with the streams `STEM_STREAMS`."""

    made_stems = STEM_STREAMS
    tolerance_samples = reading.PADDING_SAMPLES

    @classmethod
    def find(cls, entries: Sequence[pathlib.Path], split: str) -> Iterator[Song]:
        files = (entry for entry in entries if entry.name.endswith(STEM_SUFFIX))
        return (cls(file.name.removesuffix(STEM_SUFFIX), split, file) for file in files)

    def paths(self) -> list[pathlib.Path]:
        return [self.path]

    def files(self) -> dict[str, pathlib.Path]:
        return {}

    def headers(self, probe: Probe, stems: Sequence[str] | None = None) -> dict[str, reading.AudioInfo]:
        with self.named_in_errors():
            streams = reading.probe_streams(self.path)
        if len(streams) != len(STEM_STREAMS):
            raise SongError(
                f"{self} has {len(streams)} audio streams in {self.path}, expected {len(STEM_STREAMS)} "
                f"({', '.join(STEM_STREAMS)}); put a complete file in its place"
            )
        return dict(zip(STEM_STREAMS, streams, strict=True))

    def blocks(self, stems: Sequence[str], note: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
        with self.named_in_errors():
            for block in reading.read_streams(self.path, note=note):
                yield dict(zip(STEM_STREAMS, block, strict=True))


@dataclasses.dataclass(frozen=True)
class Track:
    """A song that can be streamed: its files by stem, all of one rate and length; or a recording, the file of a source.

    Attributes:
        files: path by stem: every source, and "mixture" where the song has one.
        encodings: the (container, encoding) pairs of the files.
        channel_counts: the numbers of channels of the files.
    """

    name: str
    split: str
    files: Mapping[str, pathlib.Path]
    sample_rate: int
    num_samples: int
    encodings: frozenset[tuple[str, str]]
    channel_counts: frozenset[int]

    @property
    def is_recording(self) -> bool:
        """True for a file that was never part of a song, which has two stems or more."""
        return len(self.files) == 1

    @property
    def is_wav(self) -> bool:
        """True if every file is a 16-bit WAV, which the reader in the graph needs."""
        return self.encodings <= WAV_ENCODINGS

    @property
    def streamable(self) -> bool:
        """True if every file is a 16-bit WAV or FLAC; others are converted first."""
        return self.encodings <= WAV_ENCODINGS | FLAC_ENCODINGS


class NoSongsError(UserError):
    """A folder in which there is no song."""


class SongError(UserError):
    """A song that cannot be used, with the reason and the remedy."""


def find_songs(root: pathlib.Path) -> list[Song]:
    """Lists the songs under a folder, sorted by split and name, with validation songs chosen.

    Songs in `valid/` are the validation songs. Without that folder they are the songs of MUSDB18's official list,
    and where none of these is present, about 15% of the training songs by a hash of their names, so that a song
    that is added moves no other. Of so few songs that no hash is below that share the lowest is taken, and a song that
    is added may take its place.

    Raises:
        UserError: the folder does not exist, or cannot be read; or two songs of a split have one name.
        NoSongsError: the folder holds no song.
    """
    songs: dict[tuple[str, str], Song] = {}
    if not root.is_dir():
        raise UserError(f"no such folder: {root}; expected a folder of songs")
    folders = split_folders(root)
    for folder, split in folders.items():
        entries = [entry for entry in list_folder(folder) if entry not in folders]
        for song in songs_among(entries, split):
            other = songs.setdefault((song.split, song.name), song)
            # Beside NAME.stem.mp4, the folder NAME comes first and needs no decoding.
            is_decoded = type(other) is Song and isinstance(song, StemFile) and other.folder == song.folder
            if other is not song and not is_decoded:
                raise UserError(
                    f"{other.path} and {song.path} are two songs of one name, for {song.split}; rename one of the two"
                )
    if not songs:
        raise NoSongsError(
            f"no songs under {root}; expected NAME{STEM_SUFFIX} files, or one folder for each song that holds "
            f"vocals.wav, drums.wav, ...; `{check_command(root)}` says what is there"
        )
    return sorted(_choose_validation(list(songs.values())), key=lambda song: (song.split, song.name))


def check_command(root: pathlib.Path, stems: Sequence[str] = ()) -> str:
    """The command that says what is wrong with songs under a folder, of the stems if these are given, for a shell."""
    sources = ["--sources", ",".join(stems)] if stems else []
    return shlex.join(["python", "-m", "pipelines.check", str(root), *sources])


def split_folders(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """The folders in which songs may lie, each with its split: `root` itself, and what it has of `SPLIT_FOLDERS`."""
    return {root: "train"} | {root / name: split for name, split in SPLIT_FOLDERS.items() if (root / name).is_dir()}


def songs_among(entries: Sequence[pathlib.Path], split: str) -> Iterator[Song]:
    """Yields the songs of every layout among the entries of a split's folder."""
    for layout in LAYOUTS.values():
        found = list(pkgutil.resolve_name(layout).find(entries, split))
        yield from found
        taken = {entry for song in found for entry in song.entries()}
        entries = [entry for entry in entries if entry not in taken]


def split_folder(song: Song, root: pathlib.Path) -> str:
    """The split in whose folder a song lies: "train" for validation songs that were chosen by name."""
    if song.split == "test":
        return song.split
    return "train" if song.folder == root else SPLIT_FOLDERS[song.folder.name]


def how_validation_was_chosen(songs: Sequence[Song], root: pathlib.Path) -> str:
    """Says in a few words where the validation songs that `find_songs` gave come from."""
    chosen = [song for song in songs if song.split == "valid"]
    if not chosen:
        return "there are none: put songs into a folder named valid"
    if any(split_folder(song, root) == "valid" for song in chosen):
        return "the songs in the folder valid"
    if any(song.name in _official_validation_names() for song in chosen):
        return "MUSDB18's official list"
    return "training songs, chosen by a hash of their names"


def blocks_in_step(files: Mapping[str, pathlib.Path], note: Callable[[str], None]) -> Iterator[dict[str, np.ndarray]]:
    """Yields samples of files of one length in equal steps, by the names of the files; see `Song.blocks`."""
    readers = [reading.read_blocks(path, note=note) for path in files.values()]
    for blocks in itertools.zip_longest(*readers):
        if len({samples is not None and len(samples) for samples in blocks}) > 1:
            raise UserError("its stems have different lengths when they are decoded; make them equal")
        yield dict(zip(files, blocks, strict=True))


def read_track(song: Song, stems: Sequence[str], probe: Probe) -> Track:
    """Checks that a song in a folder has every stem, with one rate and one length.

    Raises:
        SongError: a stem is missing, a file cannot be read, or the files differ in rate or length.
    """
    found = song.files()
    missing = [stem for stem in stems if stem not in found]
    if missing:
        raise SongError(
            f"{song} lacks {', '.join(missing)}; it holds {', '.join(found) or 'nothing'}: "
            f"rename a file to {missing[0]}.wav, or name the sources with --sources"
        )
    files = {stem: found[stem] for stem in (*stems, MIXTURE) if stem in found}
    with song.named_in_errors():
        infos = {stem: probe(path) for stem, path in files.items()}
    if problem := mismatch(infos):
        remedy = "remove it or put its audio back" if problem == NO_SAMPLES else "make them equal"
        raise SongError(f"{song} has {problem}; {remedy}")
    first = next(iter(infos.values()))
    encodings = frozenset((info.container, info.encoding) for info in infos.values())
    channel_counts = frozenset(info.num_channels for info in infos.values())
    return Track(song.name, song.split, files, first.sample_rate, first.num_samples, encodings, channel_counts)


def mismatch(infos: Mapping[str, reading.AudioInfo], tolerance: int = 0) -> str:
    """Says why stems cannot be read in step, "" if they can; lengths may differ by `tolerance` samples."""
    if len({info.sample_rate for info in infos.values()}) > 1:
        return f"stems of different sample rates ({by_stem(infos, 'sample_rate')})"
    lengths = [info.num_samples for info in infos.values()]
    if lengths and max(lengths) - min(lengths) > tolerance:
        return f"stems of different lengths in samples ({by_stem(infos, 'num_samples')})"
    return NO_SAMPLES if lengths and not max(lengths) else ""


def by_stem(infos: Mapping[str, reading.AudioInfo], attribute: str) -> str:
    """Lists an attribute of each stem."""
    return ", ".join(f"{stem} {getattr(info, attribute)}" for stem, info in infos.items())


def data_folder(data: pathlib.Path) -> pathlib.Path:
    """Returns the folder that `data` stands for: itself, or for `musdb18-7s` a copy of that preview.

    Raises:
        UserError: the preview is not there yet and cannot be downloaded.
    """
    if str(data) != PREVIEW or data.exists():
        return data
    preview = cache_path() / PREVIEW
    if not preview.exists():
        download_preview(preview)
    return preview


def download_preview(destination: pathlib.Path) -> None:
    """Downloads musdb's preview of MUSDB18, 7 s of every song, about 140 MB; a full data set is on zenodo.org."""
    import http.client
    import urllib.error
    import zipfile

    try:
        import musdb
    except RuntimeError as error:
        raise UserError(
            f"the download of {PREVIEW} is musdb's, which needs ffmpeg and ffprobe; install them (apt install ffmpeg)"
        ) from error
    with whole_folder(destination) as folder:
        try:
            # Without subsets musdb does not go on to start ffprobe for every stem.
            musdb.DB(root=str(folder), download=True, subsets=[])
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
            zipfile.BadZipFile,
        ) as error:
            raise UserError(
                f"cannot download {PREVIEW}: {getattr(error, 'reason', error)}; try again with internet, or give "
                "--data a folder of songs"
            ) from error


class ProbeIndex:
    """File headers that were read before, kept under the user's cache folder.

    An entry is trusted only while its file has the size and the modification time that it had. The index saves time
    and nothing else: where it cannot be read or written, headers are read again.

    Args:
        root: folder of songs or recordings.
        may_guess: as of `reading.measure`.
    """

    def __init__(self, root: pathlib.Path, *, may_guess: bool = False):
        self._may_guess = may_guess
        # Another version of this project may keep other facts of a file.
        facts = [field.name for field in dataclasses.fields(reading.AudioInfo)]
        name = hashlib.sha256(json.dumps([str(root.resolve()), facts]).encode()).hexdigest()[:16]
        self._path = cache_path() / "index" / f"{name}.json"
        self._changed = False
        self._entries: dict[str, dict] = {}
        with contextlib.suppress(OSError, ValueError, TypeError):
            self._entries = dict(json.loads(self._path.read_text()))

    def probe(self, path: pathlib.Path) -> reading.AudioInfo:
        """`reading.measure`, from the index where the file has not changed."""
        reading.check_readable(path)
        key, current = str(path.resolve()), stamp(path)
        with contextlib.suppress(KeyError, TypeError):
            entry = self._entries[key]
            info = reading.AudioInfo(**entry["info"])
            if entry["stamp"] == current and (self._may_guess or not info.is_guess):
                return info
        info = reading.measure(path, may_guess=self._may_guess)
        self._entries[key] = {"stamp": current, "info": dataclasses.asdict(info)}
        self._changed = True
        return info

    def save(self) -> None:
        """Writes the index if it has changed, and can be written."""
        if self._changed:
            with contextlib.suppress(UserError), whole_file(self._path) as temporary:
                temporary.write_text(json.dumps(self._entries))


def list_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(folder / name for name in os.listdir(folder) if not is_hidden(name))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}; check its permissions") from error


def is_hidden(name: str) -> bool:
    """Tells what systems and programs leave in folders from songs, whose titles may begin with an ellipsis."""
    return (name.startswith(".") and not name.startswith("...")) or name == "__MACOSX"


def _holds_audio(entry: pathlib.Path) -> bool:
    if not entry.is_dir():
        return False
    try:
        return any(path.suffix.lower() in AUDIO_SUFFIXES for path in list_folder(entry))
    except UserError:
        # A song that cannot be looked into is still named, with its reason, by whoever reads it.
        return True


def _choose_validation(songs: list[Song]) -> list[Song]:
    training = [song for song in songs if song.split == "train"]
    if any(song.split == "valid" for song in songs) or not training:
        return songs
    official = _official_validation_names()
    chosen = {song.name for song in training if song.name in official}
    if not chosen:
        names = sorted((song.name for song in training), key=name_hash)
        chosen = {name for name in names if name_hash(name) < VALIDATION_SHARE}
        # A handful of songs may all miss the share, or all be in it: one stays apart, and one for training.
        chosen = (chosen | set(names[:1])) - set(names[-1:])
    return [
        dataclasses.replace(song, split="valid") if song.split == "train" and song.name in chosen else song
        for song in songs
    ]


def name_hash(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") / 2**64


def _official_validation_names() -> set[str]:
    import yaml

    # `import musdb` would need ffmpeg on the machine; its list of names does not.
    folder = pathlib.Path(importlib.util.find_spec("musdb").origin).parent
    return set(yaml.safe_load((folder / "configs" / "mus.yaml").read_text())["validation_tracks"])

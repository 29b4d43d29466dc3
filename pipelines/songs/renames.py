"""Suggests renames, or other folders, when songs or stems were not found under the names that are read."""

import os
import pathlib
import re
from collections.abc import Collection, Iterator

from pipelines.audio.reading import SUFFIXES
from pipelines.songs.layouts import AUDIO_SUFFIXES, MIXTURE, SPLIT_FOLDERS, STEM_SUFFIX, check_command, songs_among

# Words in file names, by the stem that they stand for.
STEM_WORDS = {
    "vocals": {"vocals", "vocal", "voice", "voices", "vox", "voc", "singing", "singer", "acapella", "speech"},
    "drums": {"drums", "drum", "percussion", "drumkit"},
    "bass": {"bass", "bassline"},
    "other": {"other", "others", "rest", "remainder"},
    MIXTURE: {"mixture", "mix", "mixdown", "master"},
    "accompaniment": {"accompaniment", "instrumental", "karaoke", "backing"},
}
SPLIT_WORDS = {
    "train": {"train", "training", "dev"},
    "valid": {"valid", "validation", "val"},
    "test": {"test", "testing", "eval"},
}
# A stem may lie in these, too, and an `.mp4` may be a song of many stems.
OTHER_AUDIO_SUFFIXES = SUFFIXES.difference(AUDIO_SUFFIXES, {".mp4"})
DEEPEST_LEVEL = 4
SHOWN_FOLDERS = 3


def rename_files(song: pathlib.Path, missing: Collection[str]) -> list[str]:
    """Suggests which files of a song's folder to rename, so that the missing stems are found."""
    names = _names(song)
    suggestions = []
    for wanted in missing:
        words = STEM_WORDS.get(wanted, {wanted.lower()})
        for name in names:
            stem, suffix = os.path.splitext(name)
            found = set(re.split(r"[\W\d_]+", stem.lower()))
            if not words & found or found & {"no", "minus", "without"}:
                continue
            if suffix.lower() in AUDIO_SUFFIXES:
                suggestions.append(f"rename {name} to {wanted}{suffix.lower()}")
            elif suffix.lower() in OTHER_AUDIO_SUFFIXES:
                suggestions.append(f"convert {name} to {wanted}.wav")
            else:
                continue
            break
    stems = {os.path.splitext(name)[0] for name in names}
    accompaniment = stems & STEM_WORDS["accompaniment"]
    if "vocals" in stems and accompaniment and not suggestions:
        suggestions.append(f"name the sources that are there: --sources vocals,{min(accompaniment)}")
    return suggestions


def rename_splits(root: pathlib.Path) -> dict[str, str]:
    """Suggestions by folder: those that hold songs and are named nearly like a split ("Train", "testing")."""
    return {
        name: f"rename the folder {name} to {split}"
        for name in _names(root)
        for split, words in SPLIT_WORDS.items()
        if name.lower() in words and name not in SPLIT_FOLDERS and _holds_songs(root / name)
    }


def where_songs_are(root: pathlib.Path) -> list[str]:
    """Suggests what to do about a folder in which no song was found."""
    suggestions = list(rename_splits(root).values())
    names = _names(root)
    if any(pathlib.Path(name).suffix.lower() in AUDIO_SUFFIXES for name in names):
        parent = root.resolve().parent
        suggestions.append(
            f"{root} holds audio files itself: if it is one song, check the folder above, {parent}; "
            "if each file is a song's stem, give every song a folder of its own"
        )
    deeper = [folder for folder in _folders(root, DEEPEST_LEVEL) if folder != root and _holds_songs(folder)]
    bases = dict.fromkeys(folder.parent if folder.name in SPLIT_FOLDERS else folder for folder in deeper)
    bases.pop(root, None)
    if not suggestions:
        suggestions += [f"songs lie deeper: {check_command(base)}" for base in bases][:SHOWN_FOLDERS]
    for folder in (root, *_folders(root, 1)):
        plain = [name for name in _names(folder) if name.endswith(".mp4") and not name.endswith(STEM_SUFFIX)]
        if plain:
            suggestions.append(f"rename {plain[0]} to {plain[0].removesuffix('.mp4')}{STEM_SUFFIX}, if it holds stems")
            break
    compressed = {
        suffix
        for folder in _folders(root, DEEPEST_LEVEL)
        for suffix in (pathlib.Path(name).suffix.lower() for name in _names(folder))
        if suffix in OTHER_AUDIO_SUFFIXES
    }
    if compressed and not suggestions:
        suggestions.append(f"convert the {', '.join(sorted(compressed))} files to WAV or FLAC")
    layout = f"put NAME{STEM_SUFFIX} files there, or one folder for each song that holds vocals.wav, drums.wav, ..."
    return suggestions or [layout]


def _holds_songs(folder: pathlib.Path) -> bool:
    return any(songs_among([folder / name for name in _names(folder)], "train"))


def _folders(root: pathlib.Path, levels: int) -> Iterator[pathlib.Path]:
    """Yields a folder and those within, `levels` deep."""
    yield root
    if levels:
        for name in _names(root):
            if (root / name).is_dir():
                yield from _folders(root / name, levels - 1)


def _names(folder: pathlib.Path) -> list[str]:
    """The names in a folder, sorted; none where it is no folder or cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []

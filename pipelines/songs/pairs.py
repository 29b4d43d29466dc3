"""Pairs of clean and noisy speech, as VoiceBank-DEMAND and the DNS challenge have them: `noisy*/` beside `clean*/`."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.songs.layouts import MIXTURE, Probe, Song, SongError, blocks_in_step, by_stem, list_folder, mismatch

CLEAN, NOISY, NOISE = "clean", "noisy", "noise"
# The DNS challenge gives the two files of a pair names that end alike.
SAME_END = re.compile(r"fileid_\d+$")


@dataclasses.dataclass(frozen=True)
class Pair(Song):
    """A noisy file and its clean one: `speech` is the clean one, `noise` what the noisy one has besides.

    Attributes:
        clean: None where it is missing.
    """

    clean: pathlib.Path | None
    made_stems = (MIXTURE, "speech", NOISE)

    @classmethod
    def find(cls, entries: Sequence[pathlib.Path], split: str) -> Iterator[Song]:
        folders = {entry.name: entry for entry in entries if entry.name.startswith((CLEAN, NOISY)) and entry.is_dir()}
        for name, folder in folders.items():
            if name.startswith(NOISY) and (clean := folders.get(_renamed(name, CLEAN))):
                by_key = {_key(path): path for path in _audio_files(clean)}
                for path in _audio_files(folder):
                    yield cls(path.stem, "test" if "test" in name else split, path, by_key.get(_key(path)))

    @property
    def folder(self) -> pathlib.Path:
        return self.path.parent.parent

    def entries(self) -> list[pathlib.Path]:
        # The noise alone lies beside them, too, in the DNS challenge.
        return [self.folder / _renamed(self.path.parent.name, kind) for kind in (NOISY, CLEAN, NOISE)]

    def paths(self) -> list[pathlib.Path]:
        return [path for path in (self.path, self.clean) if path]

    def files(self) -> dict[str, pathlib.Path]:
        return {}

    def headers(self, probe: Probe, stems: Sequence[str] | None = None) -> dict[str, reading.AudioInfo]:
        if not self.clean:
            raise SongError(f"{self} has no file in {self.entries()[1]}; put it there, or remove {self.path}")
        with self.named_in_errors():
            infos = {CLEAN: probe(self.clean), NOISY: probe(self.path)}
        if len({info.num_channels for info in infos.values()}) > 1:
            raise SongError(
                f"{self} has different numbers of channels ({by_stem(infos, 'num_channels')}); make them equal"
            )
        if problem := mismatch(infos):
            raise SongError(f"{self} has {problem}; make them equal")
        return dict.fromkeys(self.made_stems, infos[NOISY])

    def blocks(self, stems: Sequence[str], note: Callable[[str], None]) -> Iterator[Mapping[str, np.ndarray]]:
        with self.named_in_errors():
            for block in blocks_in_step({CLEAN: self.clean, NOISY: self.path}, note):
                yield dict(zip(self.made_stems, (block[NOISY], block[CLEAN], block[NOISY] - block[CLEAN]), strict=True))


def _audio_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in list_folder(folder) if path.suffix.lower() in reading.SUFFIXES]


def _renamed(name: str, kind: str) -> str:
    return kind + name.removeprefix(NOISY)


def _key(path: pathlib.Path) -> str:
    """The part of a name that the two files of a pair share."""
    match = SAME_END.search(path.stem)
    return match[0] if match else path.stem

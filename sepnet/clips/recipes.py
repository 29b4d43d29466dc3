"""Recipes: which clips are made of a song, from a TOML file that is checked before anything runs."""

import dataclasses
import enum
import hashlib
import importlib.resources
import itertools
import json
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import UserError, one_line
from sepnet.clips.captions import check_template
from sepnet.clips.quality import Limits
from sepnet.options.fields import check_keys

CLIP_SECONDS = (0.4, 300.0)
LIMIT_RANGES = {
    "max_silence": (0.0, 1.0),
    "min_loudness_lufs": (-70.0, 0.0),
    "max_bleed": (0.0, 1.0),
    "max_clipping": (0.0, 1.0),
}


class ClipKind(enum.StrEnum):
    """The ways to make a clip of sources; `recipe.toml` describes each."""

    STEM = "stem"
    WITHOUT = "without"
    TOGETHER = "together"
    REMIX = "remix"


# What a caption's template may hold.
FIELDS = {
    ClipKind.STEM: ("caption", "source"),
    ClipKind.WITHOUT: ("caption", "source", "sources"),
    ClipKind.TOGETHER: ("caption", "sources"),
    ClipKind.REMIX: ("caption", "sources", "other_caption", "other_sources"),
}
# The keys that a remix has beside those of all kinds, and the most that the numbers may be.
REMIX_RANGES = {"tempo_tolerance": (0.0, 0.25), "min_confidence": (0.0, 1.0)}
KEYS = ("kind", "sources", "caption")


@dataclasses.dataclass(frozen=True)
class ClipRecipe:
    """One clip that is made of a stretch, or of a pair of stretches.

    Attributes:
        kind: what is done.
        sources: with these: the one, the one left out, those summed, or those taken from the first song.
        caption: template, with `FIELDS` of the kind.
        tempo_tolerance: of a remix: largest difference of the tempos, as a share; None takes any.
        same_key: of a remix: whether the notes must be those of one key.
        min_confidence: of a remix: smallest confidence of the estimates that these two look at.
    """

    kind: ClipKind
    sources: tuple[str, ...]
    caption: str
    tempo_tolerance: float | None = None
    same_key: bool = False
    min_confidence: float = 0.0

    @property
    def needs_tempo_and_key(self) -> bool:
        """True if estimates of tempo or key are looked at."""
        return self.tempo_tolerance is not None or self.same_key


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that is made of every stretch.

    Attributes:
        clip_seconds: length of a stretch.
        clips: in the order of the file; a clip's place in it is its `number`.
        limits: what the gate lets pass.
    """

    clip_seconds: float
    clips: tuple[ClipRecipe, ...]
    limits: Limits

    @property
    def needs_tempo_and_key(self) -> bool:
        """True if estimates of tempo or key are looked at for any clip."""
        return any(clip.needs_tempo_and_key for clip in self.clips)

    @property
    def has_remixes(self) -> bool:
        """True if stems of different songs are mixed."""
        return any(clip.kind == ClipKind.REMIX for clip in self.clips)

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of what is made: comments, layout and the order of keys make no difference."""
        values = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(values.encode()).hexdigest()


def read_recipe(path: pathlib.Path | None, sources: Sequence[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: of the TOML file; None: the one that comes with sepnet.
        sources: names of what the model gives, in order.

    Raises:
        UserError: the file cannot be read, or something in it cannot be made of these sources.
    """
    values = _read(path)
    where = "the recipe" if path is None else str(path)
    check_keys(values, ["clip_seconds", "clip", "quality"], where)
    if "clip_seconds" not in values:
        raise UserError(f"{where} has no clip_seconds; write, say, clip_seconds = 10 at its top")
    clip_seconds = _number(values, "clip_seconds", CLIP_SECONDS, where)
    quality = values.get("quality", {})
    if not isinstance(quality, Mapping):
        raise UserError(f"{where} has quality = {quality!r:.60}; expected a table, [quality]")
    check_keys(quality, list(LIMIT_RANGES), f"{where}, [quality],")
    limits = Limits(**{key: _number(quality, key, LIMIT_RANGES[key], f"{where}, [quality],") for key in quality})
    entries = values.get("clip", [])
    if not (isinstance(entries, list) and entries and all(isinstance(entry, Mapping) for entry in entries)):
        raise UserError(f"{where} has no [[clip]]; write one for each kind of clip, in double brackets")
    clips = tuple(
        clip
        for number, entry in enumerate(entries, 1)
        for clip in _clips(entry, tuple(sources), f"{where}, [[clip]] {number},")
    )
    if not clips:
        raise UserError(f"{where} makes nothing of a model with {' and '.join(sources)} alone; ask for a stem")
    return Recipe(clip_seconds, clips, limits)


def _read(path: pathlib.Path | None) -> dict[str, Any]:
    file = importlib.resources.files("sepnet") / "clips" / "recipe.toml" if path is None else path
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a recipe in TOML") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason}, byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no TOML: {one_line(error)}; mend that line") from error


def _clips(entry: Mapping[str, Any], sources: tuple[str, ...], where: str) -> list[ClipRecipe]:
    """The clips of one `[[clip]]`."""
    kind = entry.get("kind")
    if kind not in list(ClipKind):
        raise UserError(f"{where} has kind = {kind!r:.60}; choose one of {', '.join(ClipKind)}")
    is_remix = kind == ClipKind.REMIX
    check_keys(entry, [*KEYS, *((*REMIX_RANGES, "same_key") if is_remix else ())], f"{where} a {kind},")
    caption = entry.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        raise UserError(
            f'{where} has caption = {caption!r:.60}; expected a template, such as "{{caption}}, drums only"'
        )
    check_template(caption, FIELDS[kind], f"{where} caption")
    options = {key: _number(entry, key, limits, where) for key, limits in REMIX_RANGES.items() if key in entry}
    same_key = entry.get("same_key", False)
    if not isinstance(same_key, bool):
        raise UserError(f"{where} has same_key = {same_key!r:.60}; expected true or false")
    groups = _groups(entry["sources"], kind, sources, where) if "sources" in entry else _all_groups(kind, sources)
    return [ClipRecipe(ClipKind(kind), group, caption, same_key=same_key, **options) for group in groups]


def _all_groups(kind: str, sources: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the sources of each clip where the recipe names none: all of a kind that differ from the mixture."""
    groups = list(itertools.combinations(sources, 2 if kind == ClipKind.TOGETHER else 1))
    return [group for group in groups if kind in (ClipKind.STEM, ClipKind.WITHOUT) or len(group) < len(sources)]


def _groups(value: Any, kind: str, sources: tuple[str, ...], where: str) -> list[tuple[str, ...]]:
    """The groups of sources that a recipe names."""
    single = kind in (ClipKind.STEM, ClipKind.WITHOUT)
    expected = 'a list of names, such as ["drums"]' if single else 'a list of groups, such as [["drums", "bass"]]'
    groups = [[item] for item in value] if single and isinstance(value, list) else value
    if not (isinstance(groups, list) and groups and all(map(_are_names, groups))):
        raise UserError(f"{where} has sources = {value!r:.60}; expected {expected}")
    for group in groups:
        for name in group:
            if name not in sources:
                raise UserError(f"{where} names the source {name!r:.60}; the model has {', '.join(sources)}")
        written = ", ".join(group)
        if len(set(group)) < len(group) or sum(set(group) == set(other) for other in groups) > 1:
            raise UserError(f"{where} names {written} twice; name each once")
        if not single and len(group) == len(sources):
            raise UserError(f"{where} names all of the model's sources in one group ({written}); leave out one or more")
        if kind == ClipKind.TOGETHER and len(group) < 2:
            raise UserError(f'{where} has {written} alone in a group; name two or more, or write kind = "stem"')
    return [tuple(group) for group in groups]


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _number(values: Mapping[str, Any], key: str, limits: tuple[float, float], where: str) -> float:
    value, (least, most) = values[key], limits
    # To Python, true is a number.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{where} has {key} = {value!r:.60}; expected a number from {least:g} to {most:g}")
    return float(value)

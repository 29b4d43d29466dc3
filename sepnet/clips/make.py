"""Clips made of a stretch of a song and its stems, and of two such stretches."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np

from sepnet.clips.captions import Hook, fill, spoken
from sepnet.clips.measures import Measures, bleed, clipping, cross_powers, loudness_lufs, silence
from sepnet.clips.quality import Limits, gate
from sepnet.clips.recipes import ClipKind, ClipRecipe, Recipe
from sepnet.clips.tempo_and_key import TempoAndKey, alike


@dataclasses.dataclass(frozen=True, eq=False)
class Excerpt:
    """A stretch of a song, as long as a clip, and what a model made of it.

    Attributes:
        song: the song's id.
        caption: the song's; empty if it has none.
        sample_rate: Hz.
        mixture: float32 `[num_samples, num_channels]`, full scale ±1.
        estimates: by source, in the model's order, each of the mixture's shape.
        tempo_and_key: where the recipe needs them; None if they were not estimated.
    """

    song: str
    caption: str
    sample_rate: int
    mixture: np.ndarray
    estimates: Mapping[str, np.ndarray]
    tempo_and_key: TempoAndKey | None = None

    @functools.cached_property
    def heard(self) -> list[str]:
        """The sources that are not silent from beginning to end, in order."""
        return [source for source, stem in self.estimates.items() if silence(stem, self.sample_rate) < 1]

    def cut(self, num_samples: int) -> Self:
        """Its beginning; itself where it is no longer than that."""
        if num_samples == len(self.mixture):
            return self
        estimates = {source: stem[:num_samples] for source, stem in self.estimates.items()}
        return dataclasses.replace(self, mixture=self.mixture[:num_samples], estimates=estimates)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A clip, its caption, and how good it is.

    Attributes:
        number: its place in `Recipe.clips`; with the stretch, or the two, it names the clip.
        kind: what was done.
        song: id of the song, of a remix the first.
        sources: of that song, which the clip holds.
        other_song: of a remix, id of the second song; otherwise None.
        other_sources: of a remix, those of the second song; otherwise empty.
        caption: its own.
        sample_rate: Hz.
        audio: float32 `[num_samples, num_channels]`, full scale ±1, which nothing exceeds.
        gain_db: that was applied so that nothing does; 0 or less.
        measures: of the audio.
        reasons: why it does not pass the recipe's limits; empty if it passes.
    """

    number: int
    kind: ClipKind
    song: str
    sources: tuple[str, ...]
    other_song: str | None
    other_sources: tuple[str, ...]
    caption: str
    sample_rate: int
    audio: np.ndarray
    gain_db: float
    measures: Measures
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A clip as a sum of signals.

    Attributes:
        number: of the clip in the recipe.
        clip: in the recipe.
        sources: of the first song that it holds.
        other_sources: of the second.
        source: what `{source}` stands for.
        weights: of each signal in the clip.
        unwanted: places of the stems that it should not hold.
    """

    number: int
    clip: ClipRecipe
    sources: Sequence[str]
    other_sources: Sequence[str]
    source: str
    weights: Sequence[float]
    unwanted: Sequence[int]


def clips_of(excerpt: Excerpt, recipe: Recipe, hook: Hook | None = None) -> Iterator[Clip]:
    """Makes the clips of one stretch: all of the recipe's but the remixes.

    None is made with a source that is silent, and none that is silent itself. The same stretch gives the same clips.

    Args:
        excerpt: the stretch.
        recipe: of the same sources.
        hook: of `sepnet.clips.captions.load_hook`.

    Raises:
        UserError: the hook fails, or the audio has too many channels for its loudness to be measured.
    """
    names, heard = list(excerpt.estimates), excerpt.heard
    sums = []
    for number, clip in enumerate(recipe.clips):
        if clip.kind == ClipKind.REMIX or not {*clip.sources} <= {*heard}:
            continue
        rest = [name for name in names if name not in clip.sources]
        is_without = clip.kind == ClipKind.WITHOUT
        held, unwanted = (rest, clip.sources) if is_without else (clip.sources, rest)
        sign = -1 if is_without else 1
        weights = [*(sign * (name in clip.sources) for name in names), int(is_without)]
        sums.append(_Sum(number, clip, held, (), clip.sources[0], weights, [names.index(name) for name in unwanted]))
    signals = [*excerpt.estimates.values(), excerpt.mixture]
    yield from _finished(sums, signals, recipe.limits, hook, excerpt)


def remixes_of(first: Excerpt, second: Excerpt, recipe: Recipe, hook: Hook | None = None) -> Iterator[Clip]:
    """Makes the remixes of two stretches of different songs whose tempo and key are alike enough.

    Both are cut to the shorter one; nothing is stretched, and levels stay. Sources that are silent are left out; where
    nothing is left of one of the songs, no clip is made.

    Args:
        first: the song that the recipe's sources are taken from.
        second: the song that all the others are taken from; of the same model.
        recipe: of the same sources.
        hook: of `sepnet.clips.captions.load_hook`.

    Raises:
        UserError: as of `clips_of`.
    """
    num_samples = min(len(first.mixture), len(second.mixture))
    first, second = (excerpt.cut(num_samples) for excerpt in (first, second))
    heard, other_heard = first.heard, second.heard
    sums = []
    for number, clip in enumerate(recipe.clips):
        held = [name for name in clip.sources if name in heard]
        others = [name for name in other_heard if name not in clip.sources]
        if clip.kind != ClipKind.REMIX or not (held and others):
            continue
        if not alike(first.tempo_and_key, second.tempo_and_key, clip):
            continue
        weights = [*(name in held for name in first.estimates), *(name in others for name in second.estimates)]
        unwanted = [place for place, is_held in enumerate(weights) if not is_held]
        sums.append(_Sum(number, clip, held, others, held[0], weights, unwanted))
    signals = [*first.estimates.values(), *second.estimates.values()]
    yield from _finished(sums, signals, recipe.limits, hook, first, second)


def _finished(
    sums: Sequence[_Sum],
    signals: Sequence[np.ndarray],
    limits: Limits,
    hook: Hook | None,
    first: Excerpt,
    second: Excerpt | None = None,
) -> Iterator[Clip]:
    """The clips that are heard: summed, made no louder than full scale, measured and captioned."""
    if not sums:
        return
    crossed = cross_powers(signals, first.sample_rate)
    for plan in sums:
        audio = np.zeros_like(signals[0])
        for weight, signal in zip(plan.weights, signals, strict=True):
            if weight:
                audio += weight * signal
        peak = float(np.abs(audio).max())
        gain_db = 0.0
        if peak > 1:
            audio /= np.float32(peak)
            gain_db = round(-20 * math.log10(peak), 2)
        silent = silence(audio, first.sample_rate)
        if silent == 1:
            continue
        measures = Measures(
            loudness_lufs=loudness_lufs(audio, first.sample_rate),
            silence=silent,
            bleed=bleed(crossed, plan.weights, plan.unwanted),
            clipping=clipping(audio),
        )
        yield Clip(
            number=plan.number,
            kind=plan.clip.kind,
            song=first.song,
            sources=tuple(plan.sources),
            other_song=None if second is None else second.song,
            other_sources=tuple(plan.other_sources),
            caption=_caption(plan, first, second, hook),
            sample_rate=first.sample_rate,
            audio=audio,
            gain_db=gain_db,
            measures=measures,
            reasons=gate(measures, limits),
        )


def _caption(plan: _Sum, first: Excerpt, second: Excerpt | None, hook: Hook | None) -> str:
    values = {"caption": first.caption, "source": plan.source, "sources": spoken(plan.sources)}
    facts = {"caption": first.caption, "kind": str(plan.clip.kind), "song": first.song, "sources": [*plan.sources]}
    if second is not None:
        values |= {"other_caption": second.caption, "other_sources": spoken(plan.other_sources)}
        facts |= {
            "other_caption": second.caption,
            "other_song": second.song,
            "other_sources": [*plan.other_sources],
        }
    template_caption = fill(plan.clip.caption, values)
    return template_caption if hook is None else hook({**facts, "template_caption": template_caption})

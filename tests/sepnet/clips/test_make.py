"""Clips of real stems: what is in them, what they are called, and which are not made."""

import dataclasses
import itertools

import numpy as np
import pytest

from sepnet.clips.make import Excerpt, clips_of, remixes_of
from sepnet.clips.measures import Measures, clipping, loudness_lufs, silence
from sepnet.clips.quality import Limits
from sepnet.clips.recipes import ClipKind, ClipRecipe, Recipe, read_recipe
from sepnet.clips.tempo_and_key import TempoAndKey

RATE = 44_100
CAPTION = 'a "slow" {song}\nwith 🎹'
SURE = TempoAndKey(120.0, 0.9, "C major", 0.9)


@pytest.fixture(scope="module")
def excerpt(stems):
    # As loud as in a mixture, and a rest that no stem has, as models leave it.
    estimates = {name: stem * np.float32(0.2) for name, stem in stems.items()}
    rest = (0.001 * np.random.default_rng(0).standard_normal(estimates["drums"].shape)).astype(np.float32)
    return Excerpt("album/song", CAPTION, RATE, sum(estimates.values()) + rest, estimates, SURE)


@pytest.fixture(scope="module")
def recipe(excerpt):
    return read_recipe(None, list(excerpt.estimates))


def recipe_of(*clips: ClipRecipe, limits: Limits | None = None) -> Recipe:
    return Recipe(10.0, clips, limits or Limits())


def test_the_default_recipes_clips(excerpt, recipe):
    clips = list(clips_of(excerpt, recipe))
    names = list(excerpt.estimates)
    single = [(name,) for name in names]
    rests = [tuple(name for name in names if name != left_out) for left_out in names]
    assert [(clip.kind, clip.sources) for clip in clips] == [
        *(("stem", sources) for sources in single),
        *(("without", sources) for sources in rests),
        *(("together", sources) for sources in itertools.combinations(names, 2)),
    ]
    assert [clip.number for clip in clips] == list(range(14))
    assert [clip.caption for clip in clips[::4]] == [
        f"{CAPTION}, drums only",
        f"{CAPTION}, without drums",
        f"{CAPTION}, drums and bass only",
        f"{CAPTION}, bass and vocals only",
    ]
    for clip in clips:
        assert (clip.song, clip.other_song, clip.other_sources) == ("album/song", None, ())
        assert clip.audio.dtype == np.float32
        assert clip.gain_db == 0
        if clip.kind == "without":
            [left_out] = set(names) - set(clip.sources)
            expected = excerpt.mixture - excerpt.estimates[left_out]
        else:
            expected = sum(excerpt.estimates[name] for name in clip.sources)
        np.testing.assert_allclose(clip.audio, expected, rtol=0, atol=1e-7)
        assert clip.reasons == ()
        assert clip.measures == Measures(
            loudness_lufs(clip.audio, RATE), silence(clip.audio, RATE), clip.measures.bleed, clipping(clip.audio)
        )
        # The stems are true ones.
        assert 0 <= clip.measures.bleed < 0.05


def test_clips_are_the_same_each_time(excerpt, recipe):
    for first, second in zip(clips_of(excerpt, recipe), clips_of(excerpt, recipe), strict=True):
        assert np.array_equal(first.audio, second.audio)
        assert (first.caption, first.measures) == (second.caption, second.measures)


def test_inputs_stay_as_they_are(excerpt, recipe):
    before = {name: stem.copy() for name, stem in {**excerpt.estimates, "mixture": excerpt.mixture}.items()}
    list(clips_of(excerpt, recipe))
    for name, stem in {**excerpt.estimates, "mixture": excerpt.mixture}.items():
        assert np.array_equal(stem, before[name])


def test_bleed_is_that_of_what_the_clip_should_not_hold(excerpt):
    """Bass in the drums is bleed in the drums, and in the mixture without bass, but none in drums and bass."""
    drums = excerpt.estimates["drums"] + np.float32(0.5) * excerpt.estimates["bass"]
    bass = np.float32(0.5) * excerpt.estimates["bass"]
    leaking = dataclasses.replace(excerpt, estimates={**excerpt.estimates, "drums": drums, "bass": bass})
    recipe = recipe_of(
        ClipRecipe(ClipKind.STEM, ("drums",), "x"),
        ClipRecipe(ClipKind.WITHOUT, ("bass",), "x"),
        ClipRecipe(ClipKind.WITHOUT, ("vocals",), "x"),
        ClipRecipe(ClipKind.TOGETHER, ("drums", "bass"), "x"),
        limits=Limits(max_bleed=0.06),
    )
    alone, without_bass, without_vocals, together = clips_of(leaking, recipe)
    assert alone.measures.bleed > 0.15
    assert without_bass.measures.bleed > 0.06
    assert without_vocals.measures.bleed < 0.02
    assert together.measures.bleed < 0.02
    assert [clip.reasons for clip in (alone, without_bass, without_vocals, together)] == [
        ("bleed above 0.06",),
        ("bleed above 0.06",),
        (),
        (),
    ]


def test_what_exceeds_full_scale_is_made_softer(excerpt):
    loud = dataclasses.replace(excerpt, estimates={n: s * np.float32(8) for n, s in excerpt.estimates.items()})
    [clip] = clips_of(loud, recipe_of(ClipRecipe(ClipKind.TOGETHER, ("drums", "bass"), "x")))
    exact = loud.estimates["drums"] + loud.estimates["bass"]
    assert np.abs(exact).max() > 2
    assert np.abs(clip.audio).max() == 1
    np.testing.assert_allclose(clip.audio * 10 ** (-clip.gain_db / 20), exact, rtol=2e-3, atol=1e-6)
    assert clip.measures.clipping == 0


def test_a_silent_source_yields_no_clip(excerpt, recipe):
    hiss = (1e-4 * np.random.default_rng(0).standard_normal(excerpt.mixture.shape)).astype(np.float32)
    silent = dataclasses.replace(excerpt, estimates={**excerpt.estimates, "bass": hiss})
    clips = list(clips_of(silent, recipe))
    assert len(clips) == 3 + 3 + 3
    assert all("bass" not in clip.sources for clip in clips if clip.kind != "without")
    assert all("without bass" not in clip.caption for clip in clips)
    numbers = {(clip.kind, clip.sources): clip.number for clip in clips_of(excerpt, recipe)}
    assert all(numbers[clip.kind, clip.sources] == clip.number for clip in clips)


def test_a_mixture_of_which_nothing_remains_yields_no_clip(excerpt):
    alone = dataclasses.replace(excerpt, mixture=excerpt.estimates["drums"])
    assert list(clips_of(alone, recipe_of(ClipRecipe(ClipKind.WITHOUT, ("drums",), "x")))) == []
    nothing = {name: np.zeros_like(stem) for name, stem in excerpt.estimates.items()}
    silent = dataclasses.replace(excerpt, mixture=nothing["drums"], estimates=nothing)
    assert list(clips_of(silent, read_recipe(None, list(nothing)))) == []
    assert list(remixes_of(silent, excerpt, read_recipe(None, list(nothing)))) == []
    assert list(remixes_of(excerpt, silent, read_recipe(None, list(nothing)))) == []


def test_a_hook_is_told_what_is_known(excerpt):
    told = []

    def hook(facts):
        told.append(facts)
        return f"{len(told)}"

    clips = [
        *clips_of(excerpt, recipe_of(ClipRecipe(ClipKind.WITHOUT, ("drums",), "{sources} of {caption}")), hook),
        *remixes_of(excerpt, excerpt, recipe_of(ClipRecipe(ClipKind.REMIX, ("bass",), "{sources}")), hook),
    ]
    assert [clip.caption for clip in clips] == ["1", "2"]
    assert told == [
        {
            "caption": CAPTION,
            "template_caption": f"bass, other and vocals of {CAPTION}",
            "kind": "without",
            "song": "album/song",
            "sources": ["bass", "other", "vocals"],
        },
        {
            "caption": CAPTION,
            "template_caption": "bass",
            "kind": "remix",
            "song": "album/song",
            "sources": ["bass"],
            "other_caption": CAPTION,
            "other_song": "album/song",
            "other_sources": ["drums", "other", "vocals"],
        },
    ]


def test_remixes(excerpt, recipe):
    shorter = {name: stem[::-1][:100_000] for name, stem in excerpt.estimates.items()}
    shorter["bass"] = np.zeros_like(shorter["bass"])
    second = Excerpt("second", "another", RATE, sum(shorter.values()), shorter, TempoAndKey(240.1, 0.5, "A minor", 0.5))
    clips = list(remixes_of(excerpt, second, recipe))
    # Its bass is silent, so that it is in none.
    assert [(clip.sources, clip.other_sources) for clip in clips] == [
        (("drums",), ("other", "vocals")),
        (("bass",), ("drums", "other", "vocals")),
        (("other",), ("drums", "vocals")),
        (("vocals",), ("drums", "other")),
    ]
    for clip in clips:
        [source] = clip.sources
        expected = excerpt.estimates[source][:100_000] + sum(shorter[name] for name in clip.other_sources)
        np.testing.assert_allclose(clip.audio, expected, rtol=0, atol=1e-7)
        assert (clip.kind, clip.song, clip.other_song) == ("remix", "album/song", "second")
        assert recipe.clips[clip.number].sources == clip.sources
        assert clip.measures.bleed < 0.1
    assert clips[0].caption == f"{CAPTION}, its drums, with the other and vocals of another song: another"


def test_songs_that_are_not_alike_are_not_remixed(excerpt, recipe):
    slower = dataclasses.replace(excerpt, song="second", tempo_and_key=TempoAndKey(100.0, 0.9, "C major", 0.9))
    assert list(remixes_of(excerpt, slower, recipe)) == []
    unknown = dataclasses.replace(excerpt, song="second", tempo_and_key=None)
    assert list(remixes_of(excerpt, unknown, recipe)) == []
    anything = recipe_of(ClipRecipe(ClipKind.REMIX, ("drums",), "x"))
    assert len(list(remixes_of(excerpt, unknown, anything))) == 1

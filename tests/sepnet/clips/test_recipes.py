"""Recipes: what the default one makes, what may be written, and one line for each mistake."""

import pytest

from pipelines.errors import UserError
from sepnet.clips.recipes import ClipKind, read_recipe

SOURCES = ("drums", "bass", "other", "vocals")
STEM = '[[clip]]\nkind = "stem"\ncaption = "{caption}, {source} only"\n'
TEN = "clip_seconds = 10\n"


def entry(text: str, kind: str = "stem") -> str:
    return f'{TEN}[[clip]]\nkind = "{kind}"\ncaption = "a caption"\n{text}\n'


def captioned(template: str, kind: str = "stem") -> str:
    return f"{TEN}[[clip]]\nkind = \"{kind}\"\ncaption = '{template}'\n"


@pytest.fixture
def read(tmp_path):
    def read_text(text: str | bytes, sources=SOURCES):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_recipe(path, sources)

    return read_text


@pytest.mark.parametrize(
    ("sources", "counts"),
    [
        (SOURCES, {"stem": 4, "without": 4, "together": 6, "remix": 4}),
        (("speech", "noise"), {"stem": 2, "without": 2, "together": 0, "remix": 2}),
        (("vocals",), {"stem": 1, "without": 1, "together": 0, "remix": 0}),
    ],
)
def test_the_default_recipe_fits_any_model(sources, counts):
    recipe = read_recipe(None, sources)
    kinds = [clip.kind for clip in recipe.clips]
    assert {kind: kinds.count(kind) for kind in ClipKind} == counts
    assert recipe.clip_seconds == 10
    assert recipe.needs_tempo_and_key == bool(counts["remix"])
    # Every limit of the gate stands in it.
    assert None not in vars(recipe.limits).values()


def test_a_recipe_is_what_its_file_says(read):
    recipe = read(
        TEN
        + '[[clip]]\nkind = "without"\nsources = ["vocals"]\ncaption = "{caption}, karaoke"\n'
        + '[[clip]]\nkind = "together"\nsources = [["vocals", "drums"], ["bass", "other", "drums"]]\ncaption = "x"\n'
        + '[[clip]]\nkind = "remix"\nsources = [["vocals"]]\ncaption = "{other_caption}"\n'
        + "[quality]\nmin_loudness_lufs = -30\n"
    )
    assert [(clip.kind, clip.sources, clip.caption) for clip in recipe.clips] == [
        ("without", ("vocals",), "{caption}, karaoke"),
        ("together", ("vocals", "drums"), "x"),
        ("together", ("bass", "other", "drums"), "x"),
        ("remix", ("vocals",), "{other_caption}"),
    ]
    assert not recipe.needs_tempo_and_key
    assert vars(recipe.limits) == {
        "max_silence": None,
        "min_loudness_lufs": -30,
        "max_bleed": None,
        "max_clipping": None,
    }


def test_the_digest_is_of_what_is_made(read):
    plain = read(TEN + STEM).digest
    assert len(plain) == 64
    assert (
        read(
            "# a comment\nclip_seconds = 10.0\n\n[[clip]]\ncaption = '{caption}, {source} only'\nkind = 'stem'\n"
            'sources = ["drums", "bass", "other", "vocals"]\n'
        ).digest
        == plain
    )
    others = [
        read("clip_seconds = 9\n" + STEM),
        read(TEN + STEM.replace("only", "alone")),
        read(TEN + STEM + "[quality]\nmax_bleed = 0.1"),
        read(TEN + STEM + 'sources = ["drums"]'),
        read(TEN + STEM, ("speech", "noise")),
        read(entry("", "remix")),
        read(entry("same_key = true", "remix")),
        read(entry("tempo_tolerance = 0", "remix")),
    ]
    assert len({plain, *(recipe.digest for recipe in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no clip_seconds; write"),
        (STEM, "clip_seconds = 10 at its top"),
        (TEN, "no [[clip]]"),
        (TEN + "[clip]\nkind = 'stem'", "in double brackets"),
        (TEN + "clip = []", "no [[clip]]"),
        (TEN + "clip = ['stem']", "no [[clip]]"),
        ("clip_seconds = '10'\n" + STEM, "clip_seconds = '10'; expected a number from 0.4 to 300"),
        ("clip_seconds = true\n" + STEM, "expected a number"),
        ("clip_seconds = nan\n" + STEM, "clip_seconds = nan"),
        ("clip_seconds = inf\n" + STEM, "clip_seconds = inf"),
        ("clip_seconds = 0.1\n" + STEM, "clip_seconds = 0.1"),
        (TEN + "clips_seconds = 9\n" + STEM, "has no 'clips_seconds'; it takes clip_seconds, clip, quality"),
        (TEN + "clip_seconds = 10\n" + STEM, "line 2"),
        (TEN + "x = \n" + STEM, "line 2"),
        (TEN + STEM + '[quality]\nmax_bleed = "low"', "max_bleed = 'low'; expected a number from 0 to 1"),
        (TEN + STEM + "[quality]\nmax_bleed = 1.5", "max_bleed = 1.5"),
        (TEN + STEM + "[quality]\nmax_clipping = -0.1", "max_clipping = -0.1"),
        (TEN + STEM + "[quality]\nmin_loudness_lufs = 40", "from -70 to 0"),
        (TEN + STEM + "[quality]\nbleed = 0.1", "[quality], has no 'bleed'; it takes max_silence"),
        (TEN + "quality = 3\n" + STEM, "expected a table, [quality]"),
        (TEN + STEM + "[[clip]]\ncaption = 'x'", "[[clip]] 2, has kind = None; choose one of stem, without"),
        (entry("", "solo"), "kind = 'solo'; choose one of stem, without, together, remix"),
        (entry("[clip.kind]", "stem"), "line"),
        (TEN + "[[clip]]\nkind = ['stem']\ncaption = 'x'", "kind = ['stem']"),
        (TEN + "[[clip]]\nkind = 'stem'", "caption = None; expected a template"),
        (TEN + "[[clip]]\nkind = 'stem'\ncaption = ''", "caption = ''"),
        (TEN + "[[clip]]\nkind = 'stem'\ncaption = 3", "caption = 3"),
        (entry("source = 'drums'"), "a stem, has no 'source'; it takes kind, sources, caption"),
        (entry("same_key = true"), "a stem, has no 'same_key'"),
        (entry("sources = ['guitar']"), "the source 'guitar'; the model has drums, bass, other, vocals"),
        (entry("sources = [['drums', 'guitar']]", "together"), "the source 'guitar'; the model has drums"),
        (entry("sources = 'drums'"), 'expected a list of names, such as ["drums"]'),
        (entry("sources = []"), "sources = []"),
        (entry("sources = [3]"), "sources = [3]"),
        (entry("sources = [['drums']]"), "expected a list of names"),
        (entry("sources = ['drums', 'drums']"), "names drums twice"),
        (entry("sources = ['drums', 'bass']", "together"), "expected a list of groups"),
        (entry("sources = [[]]", "together"), "expected a list of groups"),
        (entry("sources = [['drums']]", "together"), "drums alone in a group"),
        (entry("sources = [['drums', 'drums']]", "together"), "names drums, drums twice"),
        (entry("sources = [['drums', 'bass'], ['bass', 'drums']]", "together"), "names drums, bass twice"),
        (entry("sources = [['drums', 'bass', 'other', 'vocals']]", "together"), "all of the model's sources"),
        (entry("sources = [['drums', 'bass', 'other', 'vocals']]", "remix"), "all of the model's sources"),
        (entry("tempo_tolerance = -0.1", "remix"), "tempo_tolerance = -0.1; expected a number from 0 to 0.25"),
        (entry("tempo_tolerance = 4", "remix"), "tempo_tolerance = 4"),
        (entry("min_confidence = 30", "remix"), "min_confidence = 30"),
        (entry("same_key = 'yes'", "remix"), "same_key = 'yes'; expected true or false"),
        (captioned("{captoin}, drums"), "has {captoin}; it may have {caption}, {source}"),
        (captioned("{caption}, {other_caption}"), "{other_caption}; it may have"),
        (captioned("{sources}"), "{sources}; it may have"),
        (captioned("{source}", "together"), "{source}; it may have {caption}, {sources}"),
        (captioned("{}"), "has {}; it may have"),
        (captioned("{0}"), "has {0}"),
        (captioned("{caption.upper}"), "has {caption.upper}"),
        (captioned("{caption[0]}"), "has {caption[0]}"),
        (captioned("{caption!r}"), "has {caption!r}"),
        (captioned("{caption:>9}"), "has {caption:>9}"),
        (captioned("{caption"), "write {{ and }} for braces"),
        (captioned("caption}"), "write {{ and }} for braces"),
        (b"\xff" + TEN.encode(), "UTF-8"),
    ],
)
def test_mistakes_are_one_line(read, text, said):
    with pytest.raises(UserError) as caught:
        read(text)
    message = str(caught.value)
    assert said in message
    assert "mine.toml" in message
    assert message.isprintable()


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "missing.toml"):
        with pytest.raises(UserError, match=r"cannot be read .*; name a recipe"):
            read_recipe(path, SOURCES)


def test_a_recipe_that_makes_nothing(read):
    with pytest.raises(UserError, match=r"makes nothing of a model with speech and noise"):
        read(entry("", "together"), ("speech", "noise"))

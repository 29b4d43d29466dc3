"""Captions: whatever a song's own holds comes through, and functions of the user's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import RunError, UserError
from sepnet.clips.captions import fill, load_hook, spoken

STRANGE = 'a "loud" {song} with {caption} {{and}} {0!r}, it\'s\n\ttwo lines, 🥁 日本 %s \\n \u2028'


@given(st.text().filter(str.strip))
def test_a_caption_comes_through_as_it_is(caption):
    values = {"caption": caption, "source": "drums"}
    assert fill("{source}: {caption}", values) == f"drums: {caption}"
    assert fill("{caption}, {{{source}}}", values) == f"{caption}, {{drums}}"


def test_strange_names_come_through_too():
    assert fill("{caption}/{source}", {"caption": STRANGE, "source": STRANGE}) == f"{STRANGE}/{STRANGE}"


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_song_without_caption_leaves_no_comma(nothing):
    assert fill("{caption}, {source} only", {"caption": nothing, "source": "drums"}) == "drums only"
    template = "{caption}, with another song: {other_caption}"
    for caption, other, expected in (
        (":a song:", nothing, ":a song:, with another song"),
        (nothing, ":a song:", "with another song: :a song:"),
        (nothing, nothing, "with another song"),
    ):
        assert fill(template, {"caption": caption, "other_caption": other}) == expected


def test_names_are_joined_as_a_sentence_has_them():
    assert spoken(["drums"]) == "drums"
    assert spoken(["drums", "bass"]) == "drums and bass"
    assert spoken(["drums", "bass", "other"]) == "drums, bass and other"


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """Writes a module that can be imported, and returns its name, which no other test has."""

    def write(text: str) -> str:
        name = f"captions_{abs(hash(request.node.name))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return write


def test_a_function_has_the_last_word(module):
    name = module("def rewrite(facts):\n    return facts['caption'] + '|' + '+'.join(facts['sources'])\n")
    assert load_hook(f"{name}:rewrite")({"caption": STRANGE, "sources": ["drums", "bass"]}) == f"{STRANGE}|drums+bass"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('two\\nlines')", r"cannot be imported \(ValueError: two\\nlines\)"),
        ("def rewrite(:", r"cannot be imported \(SyntaxError: "),
        ("import nowhere_at_all", r"cannot be imported \(ModuleNotFoundError: .*'nowhere_at_all'"),
        ("import sys; sys.exit('no key')", r"cannot be imported \(SystemExit: no key\)"),
        ("", "has no function 'rewrite'"),
        ("rewrite = 3", "has no function 'rewrite'"),
    ],
)
def test_modules_that_do_not_help(module, text, said):
    name = module(text)
    with pytest.raises(UserError, match=said) as caught:
        load_hook(f"{name}:rewrite")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["", "rewrite", "captions:", ":rewrite", "captions.py", "a/b.py:rewrite", "a:b:c", "a..b:c"]
)
def test_names_that_name_no_function(name):
    with pytest.raises(UserError, match="name it as module:function"):
        load_hook(name)


def test_a_module_that_is_not_there():
    with pytest.raises(UserError, match=r"nowhere_at_all, .* cannot be imported .*; mend it, or run from its folder"):
        load_hook("nowhere_at_all:rewrite")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", r"returns None for song 'a\\nsong'; expected a caption"),
        ("return 3", "returns 3 "),
        ("return ' '", "returns ' ' "),
        ("return b'text'", "returns b'text' "),
        ("return 'half of \\ud83d'", r"returns 'half of \\ud83d' "),
        ("return facts['title']", r"fails for song 'a\\nsong' \(KeyError: 'title'\)"),
        ("return 1 / 0", r"fails .*ZeroDivisionError"),
        ("raise SystemExit('no key')", r"fails .*SystemExit: no key"),
    ],
)
def test_functions_that_do_not_help(module, body, said):
    name = module(f"def rewrite(facts):\n    {body}\n")
    hook = load_hook(f"{name}:rewrite")
    with pytest.raises(RunError, match=said) as caught:
        hook({"song": "a\nsong", "caption": "x"})
    assert str(caught.value).isprintable()

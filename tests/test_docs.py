"""Pages and docstrings: links lead somewhere, named commands and flags are there, docstrings name their subject."""

import ast
import importlib.util
import pathlib
import re
import shlex
import urllib.parse

import pytest

from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(REPOSITORY.glob("docs/**/*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)
# A call ends where its line, its code, or its part of a pipe does; a backslash goes on with the next line.
CALL = re.compile(r"python -m ((?:sepnet|tuner|pipelines|benchmarks)\.[\w.]+)([^\n`|#]*)")

# A docstring that begins so is an indirect question; one that begins with a noun or a verb is a manual entry.
QUESTION = re.compile(r"(What|How|Whether|Where|Why|Who|Which)\b")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def calls(page: pathlib.Path) -> list[tuple[str, list[str]]]:
    """The commands that a page calls, each with the flags of that call."""
    lines = page.read_text().replace("\\\n", " ")
    found = []
    for module, rest in CALL.findall(lines):
        words = shlex.split(rest) if rest.count('"') % 2 == 0 and rest.count("'") % 2 == 0 else rest.split()
        found.append((module, [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]))
    return found


def test_pages_are_found():
    assert len(PAGES) > 10 and all(anchors(page) for page in PAGES)
    assert ("sepnet.plan", ["--family", "--memory"]) in calls(REPOSITORY / "README.md")


@every_page
def test_links_resolve(page):
    for link in [inline or reference for inline, reference in LINK.findall(FENCED.sub("", page.read_text()))]:
        if urllib.parse.urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


@pytest.mark.parametrize("module", sorted({module for page in PAGES for module, _ in calls(page)}))
def test_commands_have_the_flags_that_pages_give_them(run, module):
    assert importlib.util.find_spec(module), f"there is no {module}"
    named = {flag for page in PAGES for command, flags in calls(page) if command == module for flag in flags}
    if named:
        help_text = run(module, "--help").stdout
        assert named <= set(re.findall(r"--[a-z][\w-]*", help_text))


def test_docstrings_name_their_subject():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for package in ("sepnet", "pipelines", "tuner", "benchmarks", "tests"):
        for path in (REPOSITORY / package).rglob("*.py"):
            nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
            for docstring in filter(None, map(ast.get_docstring, nodes)):
                assert not QUESTION.match(docstring), f"{path}: {docstring.splitlines()[0]}"

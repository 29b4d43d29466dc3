"""The direction of imports, and how light the commands are."""

import ast
import importlib
import pathlib

import pytest

from sepnet.models import MODELS, builder

REPOSITORY = pathlib.Path(__file__).parents[1]
# Each may import itself and those before it.
PACKAGES = ("pipelines", "sepnet", "tuner")
# The one command that runs another command's work.
MAY_IMPORT_COMMANDS = {"sepnet.demo"}
HEAVY = ("tensorflow", "keras")


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    module_name(path): ast.parse(path.read_text())
    for package in PACKAGES
    for path in (REPOSITORY / package).rglob("*.py")
}


def imported_by(module: str) -> set[str]:
    """The modules of this project that a module imports, inside of functions too."""
    imported = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return imported & set(TREES)


def is_command(module: str) -> bool:
    calls = (node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call))
    return any(ast.unparse(call) == "run_command(main)" for call in calls)


COMMANDS = sorted(filter(is_command, TREES))


def test_the_commands_are_found():
    assert {"sepnet.train", "sepnet.separate", "sepnet.demo", "pipelines.check", "pipelines.prepare"} <= set(COMMANDS)
    assert {"sepnet.config.sections", "sepnet.training.fit", "sepnet.config.songs"} <= imported_by("sepnet.train")


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_run_one_way(module):
    package = PACKAGES.index(module.partition(".")[0])
    packages = {name.partition(".")[0] for name in imported_by(module)}
    assert packages <= set(PACKAGES[: package + 1])


@pytest.mark.parametrize("module", sorted(set(TREES) - MAY_IMPORT_COMMANDS))
def test_commands_are_not_imported(module):
    assert imported_by(module) & set(COMMANDS) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_tensorflow(run, command):
    # Python lists every module that it imports on the standard error.
    outcome = run(command, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert outcome.status == 0 and outcome.stdout.startswith(f"usage: python -m {command}")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in outcome.stderr.splitlines()}
    assert "argparse" in imported and imported & set(HEAVY) == set()


@pytest.mark.parametrize("family", MODELS)
def test_every_registered_family_loads(family):
    assert callable(builder(family))
    module, _, function = MODELS[family].partition(":")
    assert builder(family) is getattr(importlib.import_module(module), function)

"""The direction of imports, and how light the commands are."""

import ast
import collections
import importlib
import pathlib

import pytest

from sepnet.models import FAMILIES, family_class

REPOSITORY = pathlib.Path(__file__).parents[1]
# Each may import itself and those before it.
PACKAGES = ("pipelines", "sepnet", "tuner")
# Every room, and the rooms of its package that it stands on: no others may be imported there. Commands, and what else
# lies at the top of a package, have no room; commands import any.
ROOMS = {
    "pipelines.audio": (),
    "pipelines.demo_songs": (),
    "pipelines.songs": ("pipelines.audio",),
    "pipelines.copies": ("pipelines.audio", "pipelines.songs"),
    "pipelines.batches": ("pipelines.audio", "pipelines.songs"),
    "pipelines.captioned": ("pipelines.audio", "pipelines.songs"),
    "sepnet.measures": (),
    "sepnet.reports": (),
    "sepnet.options": (),
    "sepnet.models.layers": (),
    "sepnet.models.bodies": ("sepnet.models.layers", "sepnet.options"),
    "sepnet.models": ("sepnet.models.layers", "sepnet.models.bodies", "sepnet.options"),
    "sepnet.config": ("sepnet.models", "sepnet.options"),
    "sepnet.export": ("sepnet.config", "sepnet.models"),
    "sepnet.separation": ("sepnet.export",),
    "sepnet.stem_sets": ("sepnet.reports", "sepnet.separation"),
    "sepnet.training": ("sepnet.config", "sepnet.measures", "sepnet.models", "sepnet.options", "sepnet.reports"),
    "sepnet.planning": (
        "sepnet.config",
        "sepnet.models",
        "sepnet.models.layers",
        "sepnet.separation",
        "sepnet.training",
    ),
    "sepnet.comparison": (
        "sepnet.config",
        "sepnet.export",
        "sepnet.measures",
        "sepnet.models",
        "sepnet.reports",
        "sepnet.separation",
    ),
    "sepnet.evaluation": ("sepnet.config", "sepnet.measures", "sepnet.reports", "sepnet.separation"),
    "sepnet.clips": ("sepnet.options",),
    "sepnet.augmentation": (
        "sepnet.clips",
        "sepnet.export",
        "sepnet.measures",
        "sepnet.separation",
        "sepnet.stem_sets",
    ),
    "sepnet.combination": ("sepnet.config", "sepnet.export", "sepnet.separation"),
    "sepnet.importers.files": (),
    "sepnet.importers": (
        "sepnet.config",
        "sepnet.export",
        "sepnet.importers.files",
        "sepnet.models",
        "sepnet.models.bodies",
        "sepnet.models.layers",
    ),
    "sepnet.serving.engine": ("sepnet.export", "sepnet.separation"),
    "sepnet.serving.routes": ("sepnet.export", "sepnet.serving.engine"),
    "sepnet.serving": ("sepnet.serving.engine", "sepnet.serving.routes"),
    "tuner.searching": (),
    "tuner.reporting": ("tuner.searching",),
}
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
    assert {"sepnet.config.config", "sepnet.training.fit", "sepnet.config.songs"} <= imported_by("sepnet.train")


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_run_one_way(module):
    package = PACKAGES.index(module.partition(".")[0])
    packages = {name.partition(".")[0] for name in imported_by(module)}
    assert packages <= set(PACKAGES[: package + 1])


def room_of(module: str) -> str | None:
    """The room in which a module lies: the longest that its name begins with."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default=None)


@pytest.mark.parametrize("module", sorted(name for name in TREES if room_of(name)))
def test_rooms_import_what_they_stand_on(module):
    room = room_of(module)
    rooms = {room_of(name) for name in imported_by(module) if name.startswith(room.partition(".")[0])} - {None, room}
    assert rooms <= set(ROOMS[room])


def test_every_folder_is_a_room_of_few_files_and_every_arrow_of_the_table_is_used():
    folders = {module.rpartition(".")[0] for module in TREES if module.count(".") > 1}
    assert folders == set(ROOMS)
    files = collections.Counter(module.rpartition(".")[0] for module in TREES if module not in folders)
    assert all(3 <= files[room] <= 10 for room in ROOMS)
    for room, allowed in ROOMS.items():
        used = {room_of(name) for module in TREES if room_of(module) == room for name in imported_by(module)}
        assert set(allowed) <= used


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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_registered_family_loads(family):
    assert callable(family_class(family))
    module, _, function = FAMILIES[family].partition(":")
    assert family_class(family) is getattr(importlib.import_module(module), function)

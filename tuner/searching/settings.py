"""Settings of a search, as `search.json` keeps them: the same command goes on with it, and one that asks for more."""

import argparse
import contextlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.errors import UserError
from sepnet.config.config import Config
from tuner.searching.records import SETTINGS, read_search, read_settings
from tuner.searching.search_space import Space, families_of, parse_knobs

# The strategies that draw as many models as they are told.
DRAWING = ("random", "bayesian")
NUM_TRIALS = 20


def given_settings(
    arguments: argparse.Namespace, bases: Mapping[str, Config], space: Space, memory_bytes: int | None
) -> dict[str, Any]:
    """Everything that the answer of a search depends on as it was given, nothing of this machine."""
    settings = {
        "strategy": arguments.strategy,
        "depths": {name: list(values) for name, values in space.depths.items()},
        "knobs": arguments.knob,
        "seeds": arguments.seeds,
        "max_trials": num_trials(arguments),
        "search_seed": None if arguments.strategy == "grid" else arguments.search_seed,
        "memory": memory_bytes,
        "try_anyway": arguments.try_anyway,
        "configs": {name: json.loads(base.to_json()) for name, base in bases.items()},
    }
    return json.loads(json.dumps(settings))


def num_trials(arguments: argparse.Namespace) -> int | None:
    """The number of models to draw; None for strategies that know it."""
    if arguments.strategy not in DRAWING:
        return None
    return NUM_TRIALS if arguments.max_trials is None else arguments.max_trials


def is_new(folder: pathlib.Path, settings: Mapping[str, Any], report: Callable[[str], None]) -> bool:
    """Checks settings against the search's own; True if they are to be written: the search is new, or grows.

    Args:
        folder: of the search.
        settings: as `given_settings` makes them.
        report: is called with a line for people where the search goes on.

    Raises:
        UserError: it was begun with others, or is damaged.
    """
    before = read_settings(folder)
    if before is None:
        return True
    search, old, new = read_search(folder), _comparable(before, settings), _comparable(settings, settings)
    changed = _differences(old, new)
    grown = {name for name, values in changed.items() if _is_more(name, *values, old)}
    # (The config of a representation that is added says no more than its depths.)
    told = {name: values for name, values in changed.items() if name not in grown or not name.startswith("configs")}
    texts = [f"{name} was {json.dumps(was)} and is {json.dumps(now)}" for name, (was, now) in told.items()]
    if settings["strategy"] == "hyperband" and changed and grown == set(changed):
        raise UserError(
            f"{'; '.join(texts)}: --strategy hyperband has chosen among what there was, and {folder} cannot grow; go "
            "on with the old settings, or take another --name"
        )
    if grown != set(changed):
        raise UserError(
            f"{folder} was begun with other settings: {'; '.join(texts)}; go on with the old ones, or take another "
            "--name"
        )
    if grown - {"seeds"} and len(search.trials) >= (settings["max_trials"] or math.inf):
        raise UserError(
            f"{'; '.join(texts)}: all {len(search.trials)} models of {folder} are drawn already; raise --max-trials as "
            "well"
        )
    report(f"{folder}: going on" + (f" with more: {'; '.join(texts)}" if texts else ""))
    return bool(grown)


def check_as_begun(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Checks the settings of a process that works at a search against those of the search, but for their memory.

    Args:
        folder: of the search.
        settings: as `given_settings` makes them.

    Raises:
        UserError: they differ, or those of the search are gone.
    """
    before = read_settings(folder)
    if before is None:
        raise UserError(f"{folder / SETTINGS} is gone; put it back, or search anew under another --name")
    begun, given = ({**_comparable(each, settings), "memory": None} for each in (before, settings))
    differences = _differences(begun, given).items()
    if differences:
        texts = [f"{name} is {json.dumps(mine)}, and {json.dumps(its)} there" for name, (its, mine) in differences]
        raise UserError(
            f"{folder} was begun with other settings: {'; '.join(texts)}; give its workers those of its chief"
        )


def _comparable(settings: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in one form, whatever version wrote them.

    An older `memory_bytes` may be this machine's own, a `max_trials` that no strategy asks for is nobody's wish, and
    what was not written is taken to be as it is now.
    """
    names = {*settings, "memory", "search_seed"} - {"memory_bytes"}
    found = {name: settings.get(name, new.get(name)) for name in names}
    if new["strategy"] not in DRAWING:
        found["max_trials"] = None
    # Configs as this version writes them. Those that cannot be read differ as they are.
    with contextlib.suppress(UserError, AttributeError):
        found["configs"] = {name: _written(config) for name, config in found.get("configs", {}).items()}
    with contextlib.suppress(UserError):
        knobs = parse_knobs(found.get("knobs") or (), families_of(new["depths"]))
        found["knobs"] = {knob.name: list(knob.values) or [f"{knob.low}:{knob.high}:{knob.log}"] for knob in knobs}
    return found


def _written(config: Any) -> Any:
    return json.loads(Config.from_values(config).to_json())


def _is_more(name: str, was: Any, now: Any, old: Mapping[str, Any]) -> bool:
    """True if a setting only adds to the old one, so that all finished trials stay in the answer."""
    part, _, inside = name.partition(".")
    representations = old.get("depths")
    is_known = not isinstance(representations, dict) or inside.partition(".")[0] in representations
    if part in ("depths", "configs") and not is_known:
        return was is None
    if part in ("depths", "knobs"):
        return isinstance(was, list) and isinstance(now, list) and all(value in now for value in was)
    return part in ("seeds", "max_trials") and isinstance(was, int) and isinstance(now, int) and was < now


def _differences(old: Any, new: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted({*old, *new}):
            found |= _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        return found
    return {} if old == new else {name: (old, new)}

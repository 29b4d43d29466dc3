"""`python -m tuner.search`: how deep should a U-Net be? KerasTuner trains every depth and says what it buys."""

import argparse
import json
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import CommandParser, UserError, positive, run_command
from sepnet.config import FAMILIES, Config, add_flags, config_from_flags
from sepnet.memory import available_bytes, counted_device, parse_memory
from tuner.analysis import COSTS, DEFAULT_COST
from tuner.records import SETTINGS, read_search, write_json
from tuner.search_space import REPRESENTATIONS, Space, parse_knob, with_values

STRATEGIES = ("grid", "random", "bayesian", "hyperband")
EXPORTS = ("best", "front", "all")
# Flags of `sepnet.train` that a search chooses itself.
CHOSEN = {"family": "--families", "depth": "--depths", "seed": "--seeds", "preset": "--knob"}
BUDGETS = {"epochs": "epochs", "min": "minutes", "J": "joules"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the options do not go together, the data cannot be used, or the search was begun with other settings.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    folder = arguments.searches / arguments.name
    bases = _bases(arguments)
    from sepnet.tracks import config_tracks

    sample_rate = config_tracks(next(iter(bases.values())).data)["train"][0].sample_rate
    depths = _depths(arguments.depths, bases, sample_rate)
    space = Space(depths, tuple(map(parse_knob, arguments.knob)))
    for base in bases.values():
        # A knob that is no option is refused before anything runs.
        with_values(base, {knob.name: (knob.values or (knob.low,))[0] for knob in space.knobs}, 0)
    if arguments.strategy == "grid":
        space.grid()
    memory_bytes = parse_memory(arguments.memory) if arguments.memory else None

    # KerasTuner loads TensorFlow: only after everything that can be refused without it.
    from tuner import workers
    from tuner.depth_tuner import DepthTuner
    from tuner.hypermodel import DepthHyperModel
    from tuner.oracles import make_oracle

    device = counted_device()
    # The workers of a CPU share its memory.
    share = arguments.workers if device == "cpu" else 1
    memory_bytes = memory_bytes or available_bytes(device) // share
    settings = {
        "strategy": arguments.strategy,
        "depths": {name: list(values) for name, values in depths.items()},
        "knobs": arguments.knob,
        "seeds": arguments.seeds,
        "max_trials": arguments.max_trials,
        "memory_bytes": memory_bytes,
        "try_anyway": arguments.try_anyway,
        "configs": {name: json.loads(base.to_json()) for name, base in bases.items()},
    }
    local = None
    if not workers.is_worker():
        _begin(folder, settings)
        if arguments.workers > 1 and not workers.is_chief():
            local = workers.LocalWorkers(_for_workers(argv), arguments.workers, folder)
    tuner = DepthTuner(
        make_oracle(
            arguments.strategy,
            space,
            max_trials=arguments.max_trials,
            max_epochs=max(base.training.epochs for base in bases.values()),
            seed=arguments.search_seed,
        ),
        DepthHyperModel(space, bases, sample_rate),
        seeds=range(arguments.seeds),
        memory_bytes=memory_bytes,
        try_anyway=arguments.try_anyway,
        device=device,
        report=_report,
        directory=str(arguments.searches),
        project_name=arguments.name,
    )
    begin = time.monotonic()
    try:
        if workers.is_worker():
            with workers.signs_of_life(folder):
                tuner.search(verbose=0)
            return
        if workers.is_chief() or local is not None:
            tuner.oracle.verbose = 0
            tuner.save()
            workers.serve(tuner.oracle, folder, _report, local)
        else:
            tuner.search(verbose=0)
    finally:
        if local is not None:
            local.end()
    _report(f"the search took {time.monotonic() - begin:.0f} s")
    _finish(folder, arguments)


def _finish(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    from tuner.answer import print_answer
    from tuner.publish import read_patiently, write_report

    print_answer(read_patiently(folder), arguments.cost)
    print(f"report: {write_report(folder, arguments.cost, audio=not arguments.no_audio)}")
    if arguments.export:
        from tuner.export import export_trials

        for trial, version in export_trials(
            read_patiently(folder), arguments.export, arguments.cost, arguments.saved_models
        ):
            print(f"exported: {trial.label}: {version}")


def _bases(arguments: argparse.Namespace) -> dict[str, Config]:
    """The config of each representation, whose depth, seed and knobs the search then changes."""
    given = vars(arguments)
    for name, instead in CHOSEN.items():
        if name in given:
            raise UserError(f"--{name} is what a search chooses; use {instead} instead")
    families = arguments.families.split(",") if arguments.families else list(FAMILIES)
    unknown = [family for family in families if family not in FAMILIES]
    if unknown:
        raise UserError(f"unknown family {unknown[0]!r} in --families; choose among {', '.join(FAMILIES)}")
    default = [name for name in ("waveform", "stft") if REPRESENTATIONS[name][0] in families]
    names = arguments.representations.split(",") if arguments.representations else default
    for name in names:
        if name not in REPRESENTATIONS:
            raise UserError(f"unknown representation {name!r}; choose among {', '.join(REPRESENTATIONS)}")
        if REPRESENTATIONS[name][0] not in families:
            raise UserError(
                f"--representations {name} is made by {REPRESENTATIONS[name][0]}, which --families leaves out"
            )
    fields = {family: set(section.__dataclass_fields__) for family, section in FAMILIES.items()}
    chosen = {REPRESENTATIONS[name][0] for name in names}
    others = set().union(*fields.values()) - set().union(*(fields[family] for family in chosen))
    stray = sorted(name for name in others if name in given)
    if stray:
        raise UserError(f"--{stray[0].replace('_', '-')} is no option of {' and '.join(sorted(chosen))}")
    budget = _budget(arguments.budget)
    if arguments.strategy == "hyperband" and "epochs" not in budget:
        raise UserError(
            f"--budget is {arguments.budget!r}, and --strategy hyperband trains its models for growing numbers of "
            "epochs; give the largest of them, such as 9epochs"
        )
    bases = {}
    for name in names:
        family, fixed = REPRESENTATIONS[name]
        foreign = set().union(*fields.values()) - fields[family]
        values = {key: value for key, value in given.items() if key not in foreign}
        bases[name] = config_from_flags(argparse.Namespace(**{**fixed, **values, **budget, "family": family}))
    return bases


def _budget(text: str) -> dict[str, float]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(epochs|min|J)", text)
    if not match:
        raise UserError(f"--budget is {text!r}; give what each run may spend, such as 10epochs, 2min or 500J")
    number = float(match[1])
    if match[2] == "epochs" and number != int(number):
        raise UserError(f"--budget is {text!r}; epochs come whole")
    return {BUDGETS[match[2]]: int(number) if match[2] == "epochs" else number}


def _depths(text: str | None, bases: Mapping[str, Config], sample_rate: int) -> dict[str, range]:
    """The depths of each representation: those asked for, or all that the segment has room for."""
    depths = {}
    for name, base in bases.items():
        largest = base.model.largest_depth(round(base.data.segment_seconds * sample_rate))
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text or f"1-{largest}")
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise UserError(f"--depths is {text!r}, which is no depth; give the first and the last, such as 3-9")
        if first > largest:
            raise UserError(
                f"--depths {text} does not fit: a segment of {base.data.segment_seconds} s has room for {largest} "
                f"levels of {name}; lower --depths or raise --segment-seconds"
            )
        depths[name] = range(first, last + 1)
    return depths


def _begin(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder of a search, or finds that it is of this search.

    Raises:
        UserError: it was begun with other settings.
    """
    path = folder / SETTINGS
    if not path.exists():
        write_json(path, settings)
        return
    before = read_search(folder).settings
    changed = [
        f"{name} was {_shown(old)} and is {_shown(new)}"
        for name, (old, new) in _differences(before, json.loads(json.dumps(settings))).items()
    ]
    if changed:
        raise UserError(
            f"{folder} was begun with other settings: {'; '.join(changed)}; go on with the old ones, or take "
            "another --name"
        )
    _report(f"{folder}: going on")


def _differences(old: Any, new: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted({*old, *new}):
            found |= _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        return found
    return {} if old == new else {name: (old, new)}


def _shown(value: Any) -> str:
    return json.dumps(value)


def _for_workers(argv: Sequence[str]) -> list[str]:
    """The arguments that workers of this machine get: all but their number."""
    kept, skip = [], False
    for argument in argv:
        if skip:
            skip = False
        elif argument == "--workers":
            skip = True
        elif not argument.startswith("--workers="):
            kept.append(argument)
    return kept


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m tuner.search", description=__doc__.partition(": ")[2], allow_abbrev=False)
    add = parser.add_argument
    add("--name", default="depth", help="of the search; the same command again goes on with it [depth]")
    add("--searches", type=pathlib.Path, default=pathlib.Path("searches"), help="folder of searches [searches]")
    add("--families", metavar="A,B", help=f"{', '.join(FAMILIES)} (default: both)")
    add("--representations", metavar="A,B", help=f"{', '.join(REPRESENTATIONS)} (default: waveform,stft)")
    add("--depths", metavar="A-B", help="depths to try (default: 1 to the largest that the segment has room for)")
    add("--seeds", type=positive, default=1, metavar="N", help="runs of each model, which differ by their seed [1]")
    add("--budget", default="2min", help="what each run may spend, such as 10epochs, 2min or 500J [2min]")
    add("--strategy", choices=STRATEGIES, default="grid", help="which models are tried [grid: all of them]")
    add(
        "--knob",
        action="append",
        default=[],
        metavar="FIELD=...",
        help="search an option as well: a,b,c or low:high:log",
    )
    add("--max-trials", type=positive, default=20, metavar="N", help="models that random and bayesian try [20]")
    add("--search-seed", type=positive, default=1, metavar="N", help="seed of what they draw [1]")
    add("--workers", type=positive, default=1, metavar="N", help="runs at a time on this machine [1]")
    add("--memory", metavar="SIZE", help="that a run may take, such as 16GB (default: this machine's)")
    add("--try-anyway", action="store_true", help="start also what does not fit the memory by its plan")
    add("--cost", choices=tuple(COSTS), default=DEFAULT_COST, help=f"what val_mse is weighed against [{DEFAULT_COST}]")
    add("--export", choices=EXPORTS, help="write SavedModels of the best models, of the front, or of all")
    add(
        "--saved-models",
        type=pathlib.Path,
        default=pathlib.Path("saved_models"),
        help="folder of models [saved_models]",
    )
    add("--no-audio", action="store_true", help="leave the song out of the report")
    add_flags(parser)
    return parser


if __name__ == "__main__":
    run_command(main)

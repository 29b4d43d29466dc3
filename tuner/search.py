"""`python -m tuner.search`: how deep should a U-Net be? KerasTuner trains every depth and says what it buys."""

import argparse
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import CommandParser, UserError, one_line, positive, positive_up_to, run_command, user_path
from pipelines.files import sole_lock
from sepnet.config.config import Config
from sepnet.config.depths import parse_depths
from sepnet.config.flags import add_flags, add_saved_models, config_from_flags
from sepnet.measures.memory import available_bytes, counted_device, parse_memory
from sepnet.models import FAMILIES, family_class
from sepnet.models.keras_settings import load_keras
from tuner.reporting.analysis import COSTS, DEFAULT_COST, analyse
from tuner.searching import workers
from tuner.searching.records import FAILED, SETTINGS, read_search, read_settings, write_json
from tuner.searching.search_space import CHOSEN, DEFAULTS, REPRESENTATIONS, Knob, Space, families_of, parse_knobs
from tuner.searching.settings import DRAWING, NUM_TRIALS, given_settings, is_new, num_trials

STRATEGIES = ("grid", "random", "bayesian", "hyperband")
LARGEST_SEED = 2**32 - 1
MOST_SEEDS = 1000
EXPORTS = ("best", "front", "all", "blend")
MEL = "num_mel_bands"
# Minutes or joules; `sepnet.config.training` has the same limit.
SMALLEST_BUDGET = 0.01
BUDGETS = {"epochs": "epochs", "min": "minutes", "J": "joules"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the options do not go together, the data cannot be used, the search was begun with other settings, or
            another process is at it.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    workers.check_environment()
    folder, bases = _folder(arguments), _bases(arguments)
    knobs = _knobs(arguments, bases)
    from sepnet.config.songs import sample_rate_of

    sample_rate = sample_rate_of(next(iter(bases.values())).data)
    space = Space(_depths(arguments.depths, bases, sample_rate), knobs)
    if arguments.strategy == "grid":
        space.grid()
    memory_bytes = None if arguments.memory is None else parse_memory(arguments.memory)
    settings = given_settings(arguments, bases, space, memory_bytes)

    if workers.is_worker():
        tuner = _make_tuner(arguments, bases, space, settings, sample_rate, memory_bytes)
        with workers.signs_of_life(folder):
            tuner.search(verbose=0)
        return
    # (Workers share the folder with their chief.)
    with sole_lock(folder):
        begins = is_new(folder, settings, _report)
        # KerasTuner loads TensorFlow: only after everything that can be refused without it.
        tuner = _make_tuner(arguments, bases, space, settings, sample_rate, memory_bytes)
        if arguments.max_trials is not None and arguments.strategy not in DRAWING:
            _report(
                f"--max-trials has no effect: --strategy {arguments.strategy} knows by itself how many models to try"
            )
        if begins:
            write_json(folder / SETTINGS, settings)
        begin = time.monotonic()
        _search(tuner, argv, arguments.workers, folder)
        _report(f"the search took {time.monotonic() - begin:.0f} s")
        _finish(folder, arguments)


def _make_tuner(
    arguments: argparse.Namespace,
    bases: Mapping[str, Config],
    space: Space,
    settings: Mapping[str, Any],
    sample_rate: int,
    memory_bytes: int | None,
):
    """The KerasTuner tuner of a search, which goes on where the search has stopped."""
    load_keras()
    from tuner.searching.depth_tuner import DepthTuner
    from tuner.searching.oracles import make_oracle

    device = counted_device()
    if memory_bytes is None:
        # The workers of a CPU share its memory.
        memory_bytes = available_bytes(device) // (arguments.workers if device == "cpu" else 1)
    return DepthTuner(
        make_oracle(
            arguments.strategy,
            space,
            max_trials=num_trials(arguments),
            max_epochs=max(base.training.epochs for base in bases.values()),
            seed=arguments.search_seed,
        ),
        bases=bases,
        settings=settings,
        sample_rate=sample_rate,
        seeds=range(arguments.seeds),
        memory_bytes=memory_bytes,
        try_anyway=arguments.try_anyway,
        device=device,
        report=_report,
        directory=str(arguments.searches),
        project_name=arguments.name,
    )


def _search(tuner, argv: Sequence[str], num_workers: int, folder: pathlib.Path) -> None:
    """Tries models until there is none left, in this process or in workers that it serves."""
    local = None
    try:
        if num_workers > 1 and not workers.is_chief():
            local = workers.LocalWorkers(argv, num_workers, folder)
        # One that has workers here has become their chief.
        if workers.is_chief():
            tuner.oracle.verbose = 0
            tuner.save()
            workers.serve(tuner.oracle, folder, _report, local)
        else:
            tuner.search(verbose=0)
    finally:
        if local is not None:
            local.end()


def _finish(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    from tuner.reporting.answer import print_answer
    from tuner.reporting.publish import write_report

    search = read_search(folder)
    failed = [trial for trial in search.trials if trial.status == FAILED]
    if failed and not search.completed:
        first = failed[0]
        raise UserError(
            f"no model of {folder} has a result, so there is no report: {len(failed)} failed, the first, "
            f"{first.label}, since {first.reason}; `python -m tuner.report {folder}` lists them all: change what they "
            "fail of, and search under another --name"
        )
    answer = analyse(search, arguments.cost)
    print_answer(answer)
    print(f"report: {one_line(write_report(answer, audio=not arguments.no_audio))}")
    if arguments.export:
        from tuner.reporting.export import export_blend, export_trials

        which = "front" if arguments.export == "blend" else arguments.export
        exported = export_trials(answer, which, arguments.saved_models)
        for trial, version in exported:
            print(f"exported: {trial.label}: {one_line(version)}")
        if arguments.export == "blend":
            print(f"exported: blend: {one_line(export_blend(search, exported, arguments.saved_models))}")


def _folder(arguments: argparse.Namespace) -> pathlib.Path:
    if pathlib.Path(arguments.name).name in ("", ".."):
        raise UserError(f"--name is {arguments.name!r}, which names no folder of its own; give a word")
    folder = arguments.searches / arguments.name
    # Before the lock, which makes the folder: a name may be one that no folder can have.
    read_settings(folder)
    return folder


def _bases(arguments: argparse.Namespace) -> dict[str, Config]:
    """The config of each representation, whose depth, seed and knobs the search then changes."""
    given = vars(arguments)
    for name, instead in {**CHOSEN, "preset": "--knob"}.items():
        if name in given:
            raise UserError(f"--{name} is what a search chooses; use {instead} instead")
    names = _representations(arguments)
    fields = {family: {"body", *family_class(family).any_options()} for family in FAMILIES}
    chosen = {REPRESENTATIONS[name][0] for name in names}
    others = set().union(*fields.values()) - set().union(*(fields[family] for family in chosen))
    stray = sorted(name for name in others if name in given)
    if stray:
        raise UserError(f"--{stray[0].replace('_', '-')} is no option of {' and '.join(sorted(chosen))}")
    if MEL in given and "mel" not in names:
        raise UserError("--num-mel-bands is an option of the representation mel; give it in --representations as well")
    budget = _budget(arguments.budget)
    if arguments.strategy == "hyperband" and "epochs" not in budget:
        raise UserError(
            f"--budget is {arguments.budget!r}, and --strategy hyperband trains its models for growing numbers of "
            "epochs; give the largest of them, such as 9epochs"
        )
    bases = {}
    for name in names:
        family, fixed = REPRESENTATIONS[name]
        foreign = set().union(*fields.values()) - fields[family] - {"family"} | ({MEL} if name != "mel" else set())
        values = {key: value for key, value in given.items() if key not in foreign}
        bases[name] = config_from_flags(argparse.Namespace(**{**fixed, **values, **budget, "family": family}))
        if "features" in fixed and (name == "complex") != bases[name].model.features.startswith("complex"):
            raise UserError(
                f"--features {bases[name].model.features} is not what --representations {name} works on; leave it out, "
                f"or {name}"
            )
    return bases


def _representations(arguments: argparse.Namespace) -> list[str]:
    """The representations to search: those that were named, else the first of each family."""
    families = _listed(arguments.families, "--families", FAMILIES, "family")
    firsts = {family: name for name, (family, _) in reversed(REPRESENTATIONS.items())}
    default = [firsts[family] for family in families] or list(DEFAULTS)
    names = _listed(arguments.representations, "--representations", REPRESENTATIONS, "representation") or default
    for name in names:
        family, _ = REPRESENTATIONS[name]
        if families and family not in families:
            raise UserError(f"--representations {name} is made by {family}, which --families leaves out")
    return names


def _listed(text: str | None, option: str, known: Mapping[str, Any], what: str) -> list[str]:
    """The names that an option lists with commas; none where it was not given."""
    names = [] if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r} in {option}; choose among {', '.join(known)}")
        if names.count(name) > 1:
            raise UserError(f"{option} has {name} twice; name it once")
    return names


def _knobs(arguments: argparse.Namespace, bases: Mapping[str, Config]) -> tuple[Knob, ...]:
    knobs = parse_knobs(arguments.knob, families_of(bases))
    if any(knob.name == MEL for knob in knobs) and set(bases) != {"mel"}:
        raise UserError(f"--knob {MEL} is what the representations set; search it with --representations mel alone")
    return knobs


def _budget(text: str) -> dict[str, float]:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(epochs|min|J)", text)
    if not match or float(match[1]) < SMALLEST_BUDGET:
        raise UserError(f"--budget is {text!r}; give what each run may spend, such as 10epochs, 2min or 500J")
    number = float(match[1])
    if match[2] == "epochs" and number != int(number):
        raise UserError(f"--budget is {text!r}; epochs come whole")
    return {BUDGETS[match[2]]: int(number) if match[2] == "epochs" else number}


def _depths(text: str | None, bases: Mapping[str, Config], sample_rate: int) -> dict[str, list[int]]:
    """The depths of each representation: those asked for, or all that the segment has room for."""
    depths = {}
    for name, base in bases.items():
        depths[name] = base.depths(sample_rate) if text is None else parse_depths(text)
        base.check_depth(sample_rate, depths[name][0])
    return depths


def _report(text: str) -> None:
    print(one_line(text), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m tuner.search", description=__doc__.partition(": ")[2], allow_abbrev=False)
    add = parser.add_argument
    add("--name", default="depth", help="of the search; the same command again goes on with it [depth]")
    add("--searches", type=user_path, default=pathlib.Path("searches"), help="folder of searches [searches]")
    add("--families", metavar="A,B", help=f"{', '.join(FAMILIES)} (default: those of {' and '.join(DEFAULTS)})")
    add("--representations", metavar="A,B", help=f"{', '.join(REPRESENTATIONS)} (default: {','.join(DEFAULTS)})")
    add(
        "--depths",
        metavar="A-B,C",
        help="depths to try, such as 1-6 or 3,6,12 (default: 1 to the largest that the segment has room for)",
    )
    add(
        "--seeds",
        type=positive_up_to(MOST_SEEDS),
        default=1,
        metavar="N",
        help="runs of each model, which differ by their seed [1]",
    )
    add("--budget", default="2min", help="what each run may spend, such as 10epochs, 2min or 500J [2min]")
    add("--strategy", choices=STRATEGIES, default="grid", help="which models are tried [grid: all of them]")
    add(
        "--knob",
        action="append",
        default=[],
        metavar="FIELD=...",
        help="search an option as well: a,b,c or low:high:log",
    )
    add("--max-trials", type=positive, metavar="N", help=f"models that random and bayesian try [{NUM_TRIALS}]")
    add("--search-seed", type=positive_up_to(LARGEST_SEED), default=1, metavar="N", help="seed of what they draw [1]")
    add("--workers", type=positive, default=1, metavar="N", help="runs at a time on this machine [1]")
    add(
        "--memory",
        metavar="SIZE",
        help="that a run may take, such as 16GB (default: the GPU's, else this machine's by the workers)",
    )
    add("--try-anyway", action="store_true", help="start also what does not fit the memory by its plan")
    add("--cost", choices=tuple(COSTS), default=DEFAULT_COST, help=f"what val_mse is weighed against [{DEFAULT_COST}]")
    add(
        "--export",
        choices=EXPORTS,
        help="write SavedModels of the best models, of the front, all, or the front's blend",
    )
    add_saved_models(parser)
    add("--no-audio", action="store_true", help="leave the song out of the report")
    add_flags(parser)
    return parser


if __name__ == "__main__":
    run_command(main)

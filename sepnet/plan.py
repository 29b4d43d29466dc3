"""`python -m sepnet.plan`: what each depth costs, and which depth fits a memory, before anything is trained."""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import CommandParser, UserError, run_command, user_path
from pipelines.progress import progress_bar
from pipelines.tables import make_console, print_table
from sepnet.config.config import Config
from sepnet.config.depths import parse_depths
from sepnet.config.flags import add_flags, config_from_flags, refuse_config_flags
from sepnet.config.songs import sample_rate_of
from sepnet.export.contract import read_contract
from sepnet.export.saved_model import short_names
from sepnet.export.write import newest_version
from sepnet.measures.memory import UNITS, counted_device, parse_memory
from sepnet.models.keras_settings import load_keras
from sepnet.options.checks import flag

SAMPLE_RATE = 44_100
MEMORY = "16GB"
# Of the tables, in characters.
WIDTH = 100
COST_HEADINGS = ("parameters", "GFLOP/s\nof audio", "receptive\nfield, ms")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the options do not go together, or a depth does not fit the segment.
    """
    arguments = _parser().parse_args(argv)
    if arguments.models:
        refuse_config_flags(arguments, "--models tell themselves what they are")
        for name in ("memory", "depths", "device"):
            if getattr(arguments, name) is not None:
                raise UserError(f"--{name} is of networks that are to be trained; leave it out, or --models")
        contracts = [read_contract(newest_version(folder)) for folder in arguments.models]
        models = dict(zip(short_names(arguments.models), contracts, strict=True))
        if arguments.json:
            print(json.dumps(models, indent=2))
        else:
            print_models(models)
        return
    memory = arguments.memory or MEMORY
    config, memory_bytes = config_from_flags(arguments), parse_memory(memory)
    sample_rate = config.data.sample_rate or (SAMPLE_RATE if config.data.data is None else sample_rate_of(config.data))
    if arguments.depths and "depth" in arguments:
        raise UserError("--depth and --depths were given; leave out one of them")
    if arguments.depths:
        depths = parse_depths(arguments.depths)
    else:
        depths = [config.model.depth] if "depth" in arguments else config.depths(sample_rate)
    config.check_depth(sample_rate, depths[-1])
    load_keras()
    plan = make_plan(config, depths, sample_rate, memory_bytes, arguments.device or counted_device())
    if arguments.json:
        print(json.dumps(plan, indent=2))
    else:
        print_plan(plan, memory)


def make_plan(config: Config, depths: Sequence[int], sample_rate: int, memory_bytes: int, device: str) -> dict:
    """Finds out what depths cost, and the largest that fits.

    Args:
        config: checked config; its depth is not used.
        depths: depths that fit the config's segment.
        sample_rate: Hz.
        memory_bytes: memory that a training step may take.
        device: "cpu" or "gpu"; see `sepnet.planning.step_memory`.

    Returns:
        What `--json` prints: the arguments; `depths`, with the fields of `sepnet.planning.costs.Costs` and `fits`; and
        `savings`, with `flags`, the largest `depth` that fits with them (None if none does) and its `training_bytes`.
    """
    from sepnet.planning.costs import count_costs
    from sepnet.planning.step_memory import training_bytes
    from sepnet.planning.untrained import untrained

    rows = []
    best = {
        name: {"name": name, "flags": _flags(way, config), "depth": None, "training_bytes": None}
        for name, way in savings(config).items()
    }
    with progress_bar("planning", total=len(depths), unit="depths") as advance:
        for depth in depths:
            at_depth = config.changed({"depth": depth})
            network = untrained(at_depth, sample_rate)
            row = dataclasses.asdict(count_costs(at_depth, sample_rate, device, network))
            rows.append({**row, "fits": row["training_bytes"] <= memory_bytes})
            for name, way in savings(at_depth).items():
                num_bytes = training_bytes(way, sample_rate, device, network)
                if num_bytes <= memory_bytes:
                    best[name] |= {"depth": depth, "training_bytes": num_bytes}
            advance(1)
    return {
        "family": config.family,
        "sample_rate": sample_rate,
        "segment_seconds": config.data.segment_seconds,
        "batch_size": config.training.batch_size,
        "precision": config.training.precision,
        "device": device,
        "memory_bytes": memory_bytes,
        "depths": rows,
        "savings": list(best.values()),
    }


def savings(config: Config) -> dict[str, Config]:
    """The config with no way to save memory, with each alone, and with all; the batch of an update stays the same."""
    training = config.training
    mixed = training.precision if training.precision != "float32" else "mixed_bfloat16"
    num_segments = training.batch_size * training.accumulation
    plain = config.changed({"recompute": False, "precision": "float32", "batch_size": num_segments, "accumulation": 1})
    half, again = {"precision": mixed}, {"recompute": True}
    # A device has a segment of every batch at least, and two where it mixes stems of different ones.
    first = min(num_segments, training.devices * (2 if training.remix else 1))
    fewest = next(size for size in range(first, num_segments + 1, training.devices) if num_segments % size == 0)
    split = {"batch_size": fewest, "accumulation": num_segments // fewest}
    return {
        "float32": plain,
        "mixed precision": plain.changed(half),
        "recomputation": plain.changed(again),
        "accumulation": plain.changed(split),
        "all three": plain.changed(half | split | again),
    }


def print_plan(plan: dict, memory: str) -> None:
    """Prints a plan as two tables.

    Args:
        plan: of `make_plan`.
        memory: what the user called `memory_bytes`, such as "16GB".
    """
    headings = ("depth", *COST_HEADINGS, "training\na step", "separating\na block", f"fits\n{memory}")
    rows = [
        (
            str(row["depth"]),
            *_costs(row, plan["sample_rate"]),
            f"{row['training_bytes'] / 1e9:,.2f} GB",
            f"{row['separation_bytes'] / 1e9:,.2f} GB",
            "yes" if row["fits"] else "no",
        )
        for row in plan["depths"]
    ]
    title = (
        f"{plan['family']}: batches of {plan['batch_size']} segments of {plan['segment_seconds']:g} s at "
        f"{plan['sample_rate']} Hz, {plan['precision']}, {plan['device']}"
    )
    console = make_console(WIDTH)
    print_table(headings, rows, title=title, texts=(), boxed=False, console=console)
    rows = [
        (
            way["name"],
            str(way["depth"] or "none"),
            f"{way['training_bytes'] / 1e9:,.2f} GB" if way["depth"] else "",
            way["flags"],
        )
        for way in plan["savings"]
    ]
    headings, title = ("", "depth", "training", "flags"), f"largest depth in {memory}"
    print_table(headings, rows, title=title, texts=(0, 3), boxed=False, console=console)


def print_models(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints what separating with SavedModels costs.

    Args:
        models: contracts by name.

    Raises:
        UserError: a contract does not say.
    """
    rows = []
    for name, contract in models.items():
        costs = contract.get("costs", {})
        if not {"parameters", "flops_per_second", "receptive_field_samples", "separation_bytes"} <= set(costs):
            raise UserError(f"{name} does not say what it costs; only models of `python -m sepnet.pretrained` do")
        rows.append((name, *_costs(costs, contract["sample_rate"]), f"{costs['separation_bytes'] / 1e9:,.2f} GB"))
    headings = ("", *COST_HEADINGS, "separating\na block")
    print_table(headings, rows, boxed=False, console=make_console(WIDTH))


def _costs(costs: Mapping[str, Any], sample_rate: int) -> tuple[str, str, str]:
    """The cells under `COST_HEADINGS`."""
    field = costs["receptive_field_samples"]
    return (
        f"{costs['parameters'] / 1e6:,.2f} M",
        f"{costs['flops_per_second'] / 1e9:,.1f}",
        f"{1000 * field / sample_rate:,.0f}" if field else "all",
    )


def _flags(way: Config, given: Config) -> str:
    """The flags that lead from the given config to one that saves memory."""
    names = ("batch_size", "accumulation", "precision")
    changed = [name for name in names if getattr(way.training, name) != getattr(given.training, name)]
    flags = [f"{flag(name)} {getattr(way.training, name)}" for name in changed]
    if way.model.recompute != given.model.recompute:
        flags.append("--recompute" if way.model.recompute else "--no-recompute")
    return " ".join(flags)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.plan", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("--memory", help=f"that a training step may take, in {', '.join(UNITS)} [{MEMORY}]")
    parser.add_argument(
        "--depths", metavar="A-B,C", help="depths of the table (default: 1 to the largest of the segment)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="count what the process takes, or the GPU (default: what is here)"
    )
    parser.add_argument(
        "--models",
        type=user_path,
        nargs="+",
        metavar="FOLDER",
        help="SavedModels of published weights, instead of depths: what separating with them costs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_flags(parser)
    return parser


if __name__ == "__main__":
    run_command(main)

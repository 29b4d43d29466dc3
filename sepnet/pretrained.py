"""`python -m sepnet.pretrained`: models of published weights: lists them; with a name, fetches one and exports it."""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.cache import cache_path
from pipelines.errors import CommandParser, UserError, run_command, user_path
from pipelines.files import check_writable
from pipelines.tables import print_table
from sepnet.config.flags import add_saved_models
from sepnet.export.write import versions
from sepnet.importers import IMPORTERS
from sepnet.importers.catalog import read_catalog
from sepnet.importers.files.archives import unpacked
from sepnet.importers.files.fetch import fetch
from sepnet.importers.imported import Imported
from sepnet.measures.memory import counted_device
from sepnet.models.keras_settings import load_keras, precision
from sepnet.options.registry import load


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: no such name, or the weights cannot be fetched or are others.
    """
    arguments = _parser().parse_args(argv)
    catalog = read_catalog()
    if arguments.name is None and arguments.weights is not None:
        raise UserError("--weights is of one model; give its NAME as well")
    if arguments.name is not None and arguments.json:
        raise UserError("--json is for the list; leave out NAME, or --json")
    if arguments.list or arguments.name is None:
        _list(catalog, arguments.saved_models, arguments.json)
        return
    if arguments.name not in catalog:
        raise UserError(f"no pretrained model {arguments.name}; there are {', '.join(catalog)}")
    entry = catalog[arguments.name]
    if arguments.weights is None and entry["url"] is None:
        raise UserError(f"no weights of {arguments.name} are published; give --weights those of your own training")
    folder = arguments.saved_models / arguments.name
    check_writable(folder)
    # TensorFlow takes seconds to load, and a download minutes.
    load_keras()
    import keras

    if keras.config.backend() != "tensorflow":
        raise UserError(f"models are exported by TensorFlow; leave out KERAS_BACKEND={keras.config.backend()}")
    print(f"reference:   {entry['reference']}")
    print(f"licence:     {entry['licence'] or 'that of whoever trained them'}")
    weights = arguments.weights or _fetched(entry)
    try:
        imported = _read(weights, entry)
    except UserError:
        # Where no SHA-256 tells, this does that the address gives something else: the next call is to fetch it again.
        if not arguments.weights and entry["sha256"] is None:
            weights.unlink()
        raise
    print(f"SavedModel:  {_export(imported, folder, arguments.name, entry)}")
    print(f"next:        python -m sepnet.separate SONG --model {folder}")


def _read(weights: pathlib.Path, entry: Mapping[str, Any]) -> Imported:
    with unpacked(weights, entry["files"]) as place, precision("float32"):
        return load(IMPORTERS, entry["format"], "format")(place, entry["options"])


def _export(imported: Imported, folder: pathlib.Path, name: str, entry: Mapping[str, Any]) -> pathlib.Path:
    from sepnet.planning.costs import count_separation
    from sepnet.planning.step_memory import block_samples

    block = block_samples(imported.network, imported.sample_rate, imported.block_samples)
    costs = count_separation(imported.network, imported.sample_rate, block, counted_device())
    return imported.export(folder, name, entry, costs)


def _fetched(entry: Mapping[str, Any]) -> pathlib.Path:
    """The published file in the cache, fetched unless it is there."""
    path = cache_path() / "pretrained" / pathlib.PurePosixPath(entry["url"].partition("?")[0]).name
    fetch(entry["url"], path, entry["sha256"])
    return path


def _list(catalog: Mapping[str, Any], saved_models: pathlib.Path, as_json: bool) -> None:
    installed = {name: bool(versions(saved_models / name)) for name in catalog}
    if as_json:
        print(json.dumps({name: {**entry, "installed": installed[name]} for name, entry in catalog.items()}, indent=2))
        return
    rows = [
        (
            name,
            entry["what"],
            entry["figures"] or "",
            "" if entry["megabytes"] is None else str(entry["megabytes"]),
            ("no weights" if entry["url"] is None else entry["licence"]),
            "yes" if installed[name] else "",
        )
        for name, entry in catalog.items()
    ]
    headings = ("", "separates", "SDR, dB", "MB", "licence", "here")
    print_table(headings, rows, texts=(1, 4, 5), boxed=False, folded=(1, 4, 5))
    print("SDR: of each source on the test songs of MUSDB18, median of medians, as published or by its estimates.")
    by_reference: dict[str, list[str]] = {}
    for name, entry in catalog.items():
        by_reference.setdefault(entry["reference"], []).append(name)
    for reference, names in by_reference.items():
        print(f"{names[0]}{f' to {names[-1]}' if names[1:] else ''}: {reference}")
    print("`python -m sepnet.pretrained NAME` fetches one and exports it; nothing is fetched before that.")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m sepnet.pretrained", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="model to fetch and export (default: list them)")
    parser.add_argument(
        "--weights", type=user_path, metavar="FILE", help="published file or folder that you have, instead of fetching"
    )
    parser.add_argument("--list", action="store_true", help="list them, as without NAME")
    parser.add_argument("--json", action="store_true", help="list for programs")
    add_saved_models(parser)
    return parser


if __name__ == "__main__":
    run_command(main)

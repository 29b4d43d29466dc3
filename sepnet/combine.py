"""`python -m sepnet.combine MODEL MODEL...`: makes one model of several, a weighted mean of what they estimate."""

import argparse
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, folder_name, run_command, user_path
from pipelines.files import check_writable
from sepnet.combination.members import read_members
from sepnet.combination.tables import print_fits, print_weights
from sepnet.combination.weights import fit_weights, given_weights
from sepnet.config.data import Data
from sepnet.config.flags import add_saved_models
from sepnet.config.songs import config_tracks, data_of, data_root


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a model cannot be used, the models do not agree, or there are no such weights or songs.
    """
    arguments = _parser().parse_args(argv)
    if arguments.fit and arguments.weights:
        raise UserError("--weights gives what --fit finds; leave out one of them")
    sources = arguments.sources and [name.strip() for name in arguments.sources.split(",")]
    members = read_members(arguments.models, sources)
    folder = arguments.saved_models / arguments.to
    check_writable(folder)
    if arguments.fit:
        data, _ = data_of(members.parts_of_songs, (), members.num_channels, Data(data=arguments.fit))
        fits = fit_weights(members, config_tracks(data)["valid"])
        print_fits(members, fits, data_root(data))
        weights = {source: fit.weights for source, fit in fits.items()}
    else:
        fits, weights = {}, given_weights(arguments.weights, members)
        print_weights(members, weights)
    # TensorFlow takes seconds to load: only after everything that can be refused without it.
    from sepnet.combination.combined import export_combination

    print(f"SavedModel:  {export_combination(members, weights, folder, fits)}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.combine", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("models", type=user_path, nargs="+", metavar="MODEL", help="saved_models/NAME, two or more")
    parser.add_argument("--to", type=folder_name, required=True, metavar="NAME", help="name of the new model")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="WEIGHTS",
        help="2,1 for all sources, a number for each model, or vocals=2,1 for one [as much of each]",
    )
    parser.add_argument("--sources", metavar="NAMES", help="what the new model gives, as vocals,drums [all]")
    parser.add_argument("--fit", metavar="DATA", help="folder of songs on whose valid split the weights are found")
    add_saved_models(parser)
    return parser


if __name__ == "__main__":
    run_command(main)

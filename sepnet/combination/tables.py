"""Tables of weights, and of what fitted ones gain."""

import pathlib
from collections.abc import Mapping

from pipelines.tables import print_table
from sepnet.combination.members import Members
from sepnet.combination.weights import Fit, Weights


def print_weights(members: Members, weights: Weights) -> None:
    """Prints the weights of every source."""
    rows = [(source, *(f"{value:.3f}" for value in values)) for source, values in weights.items()]
    print_table(("", *map(str, members.models)), rows, title="weights")


def print_fits(members: Members, fits: Mapping[str, Fit], root: pathlib.Path) -> None:
    """Prints fitted weights, and the error of the combination beside that of the best of its models."""
    print_weights(members, {source: fit.weights for source, fit in fits.items()})
    rows = [
        (
            source,
            str(members.models[fit.best]),
            f"{fit.best_mse:.5f}",
            f"{fit.mse:.5f}",
            f"{fit.gain_db:+.2f} ({fit.interval_db[0]:+.2f} … {fit.interval_db[1]:+.2f})",
        )
        for source, fit in fits.items()
    ]
    headings = ("", "best model", "its MSE", "combined", "gain, dB (95%)")
    print_table(
        headings, rows, title=f"valid songs of {root}, each judged with the weights of the others", texts=(0, 1)
    )

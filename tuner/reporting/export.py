"""SavedModels of what a search has found."""

import pathlib
from collections.abc import Sequence

from pipelines.errors import UserError, one_line
from sepnet.combination.combined import export_combination
from sepnet.combination.members import read_members
from sepnet.combination.tables import print_fits
from sepnet.combination.weights import fit_weights
from sepnet.config.run_folder import Run
from sepnet.config.songs import config_tracks, data_root
from sepnet.export.write import export_run
from tuner.reporting.analysis import Answer
from tuner.searching.records import Search, Trial

MOST_BYTES = 255


def export_trials(answer: Answer, which: str, saved_models: pathlib.Path) -> list[tuple[Trial, pathlib.Path]]:
    """Exports models as `saved_models/<search>_<representation>_depth<depth>/<version>`, with their records inside.

    Args:
        answer: of the search.
        which: "best" (the lowest `val_mse`, and the near-optimal model), "front" (the Pareto front) or "all".
        saved_models: folder of models.

    Returns:
        The trials and the folders of their versions. Of several seeds, that of the lowest `val_mse` is taken.

    Raises:
        UserError: there is nothing to export.
    """
    search = answer.search
    if not answer.candidates:
        raise UserError(f"{search.folder} has no trial that is done; there is nothing to export")
    chosen = {
        "best": [answer.best, answer.near_optimal],
        "front": answer.front,
        "all": answer.candidates,
    }[which]
    # The best may be the near-optimal one.
    trials = {candidate.trial.trial_id: candidate.trial for candidate in chosen}
    exported = []
    for trial in trials.values():
        run = min(trial.runs, key=lambda run: run.record["metrics"]["val_mse"])
        version = export_run(Run(run.folder), saved_models / model_name(search, trial), run.record)
        exported.append((trial, version))
    return exported


def export_blend(
    search: Search, exported: Sequence[tuple[Trial, pathlib.Path]], saved_models: pathlib.Path
) -> pathlib.Path:
    """Exports one model of several, `saved_models/<search>_blend/<version>`.

    Their weights have the least squared error on the whole validation songs of the search.

    Args:
        search: the search.
        exported: of `export_trials`.
        saved_models: folder of models.

    Returns:
        Folder of the version.

    Raises:
        UserError: one model alone was exported, or there is one validation song alone.
    """
    members = read_members([version for _, version in exported])
    data = Run(exported[0][0].runs[0].folder).config.data
    fits = fit_weights(members, config_tracks(data)["valid"])
    print_fits(members, fits, data_root(data))
    weights = {source: fit.weights for source, fit in fits.items()}
    return export_combination(members, weights, saved_models / _named(search, "_blend"), fits)


def model_name(search: Search, trial: Trial) -> str:
    """The name of an exported model: UTF-8, as clients send it, and no longer than a file system takes."""
    knobs = "".join(f"_{name}-{value}" for name, value in trial.knobs.items())
    return _named(search, f"_{trial.representation}_depth{trial.depth}{knobs}")


def _named(search: Search, ending: str) -> str:
    beginning = one_line(search.folder.resolve().name).encode()[: max(MOST_BYTES - len(ending.encode()), 1)]
    return beginning.decode(errors="ignore") + ending

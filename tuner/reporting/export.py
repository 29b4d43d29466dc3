"""SavedModels of what a search has found."""

import pathlib

from pipelines.errors import UserError, one_line
from sepnet.config.run_folder import Run
from sepnet.export.write import export_run
from tuner.reporting.analysis import analyse
from tuner.searching.records import Search, Trial

MOST_BYTES = 255


def export_trials(
    search: Search, which: str, cost: str, saved_models: pathlib.Path
) -> list[tuple[Trial, pathlib.Path]]:
    """Exports models as `saved_models/<search>_<representation>_depth<depth>/<version>`, with their records inside.

    Args:
        search: with completed trials.
        which: "best" (the lowest `val_mse`, and the near-optimal model), "front" (the Pareto front) or "all".
        cost: a key of `tuner.reporting.analysis.COSTS`.
        saved_models: folder of models.

    Returns:
        The trials and the folders of their versions. Of several seeds, that of the lowest `val_mse` is taken.

    Raises:
        UserError: there is nothing to export.
    """
    answer = analyse(search, cost)
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


def model_name(search: Search, trial: Trial) -> str:
    """The name of an exported model: UTF-8, as clients send it, and no longer than a file system takes."""
    knobs = "".join(f"_{name}-{value}" for name, value in trial.knobs.items() if "/" not in name)
    ending = f"_{trial.representation}_depth{trial.depth}{knobs}"
    beginning = one_line(search.folder.name).encode()[: max(MOST_BYTES - len(ending.encode()), 1)]
    return beginning.decode(errors="ignore") + ending

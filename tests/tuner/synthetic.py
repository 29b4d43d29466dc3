"""Folders of searches with effects that are known, as a search leaves them."""

import csv
import json
import pathlib
from collections.abc import Sequence

import numpy as np

SOURCES = ("vocals", "drums", "bass", "other")
BASELINES = {
    "silence": {"val_mse": 0.008, "val_si_sdr": -80.0},
    "mixture/num_sources": {"val_mse": 0.005, "val_si_sdr": -3.0},
}


def write_search(folder: pathlib.Path, **settings) -> pathlib.Path:
    """Begins a search without trials."""
    folder.mkdir(parents=True)
    (folder / "search.json").write_text(json.dumps({"representations": ["waveform"], "depths": "1-6", **settings}))
    return folder


def write_trial(
    folder: pathlib.Path,
    representation: str,
    depth: int,
    errors=(),
    *,
    status: str = "COMPLETED",
    outcome: dict | None = None,
    message: str | None = None,
    knobs: dict | None = None,
    costs: dict | None = None,
    histories: Sequence[Sequence[tuple[float, float]]] | None = None,
    minutes: float | None = None,
    first_seed: int = 0,
    silence: float = BASELINES["silence"]["val_mse"],
) -> str:
    """Adds a trial whose runs have the given errors, `[num_seeds, num_segments, num_sources]`; returns its id.

    `histories` are minutes and `val_mse` at the ends of the epochs of each run, whose budget is `minutes`.
    """
    trial_id = f"{len(list(folder.glob('trial_*'))):04d}"
    trial = folder / f"trial_{trial_id}"
    trial.mkdir()
    values = {"representation": representation, "depth": depth, **(knobs or {})}
    state = {
        "trial_id": trial_id,
        "message": message,
        "hyperparameters": {"space": [], "values": values},
        "status": status,
    }
    (trial / "trial.json").write_text(json.dumps({**state, "metrics": {}, "score": None, "best_step": 0}))
    if outcome:
        (trial / "outcome.json").write_text(json.dumps(outcome))
    for place, of_segments in enumerate(errors):
        seed, value = first_seed + place, float(np.mean(of_segments))
        write_run(trial / f"seed_{seed}", np.asarray(of_segments), seed, depth, costs or {}, silence)
        usual = [(float(epoch), value * (1 + 2.0 ** (1 - epoch))) for epoch in range(1, 5)]
        write_history(trial / f"seed_{seed}", histories[place] if histories else usual, minutes)
    return trial_id


def write_run(folder, errors, seed, depth, costs, silence) -> None:
    folder.mkdir()
    value = float(errors.mean())
    usual = {
        "parameters": 10_000 * 2**depth,
        "gflop_per_second": 1.5 * depth,
        "receptive_field_ms": 3.0 * 2**depth if depth < 6 else None,
        "planned_training_bytes": int(4e8 * 1.7**depth),
        "peak_bytes": int(5e8 * 1.6**depth),
        "training_seconds": 60.0 * depth,
        "training_joules": 2000.0 * depth,
        "separation_seconds": 0.01 * depth,
        "separation_joules": 0.2 * depth,
    }
    of_sources = {f"val_mse_{name}": float(mse) for name, mse in zip(SOURCES, errors.mean(axis=0), strict=True)}
    record = {
        "metrics": {"epoch": 4, "val_mse": value, "val_si_sdr": 3.0, **of_sources},
        "segment_mse": errors.tolist(),
        "sources": list(SOURCES),
        "baselines": {**BASELINES, "silence": {**BASELINES["silence"], "val_mse": silence}},
        "costs": {**usual, **costs},
        "meter": {"cpu": "estimated from the load", "gpu": None},
        "hardware": {"cpu": "an 8-bit <microprocessor>"},
        "versions": {"sepnet": "0.1", "keras": "3.15.1"},
        "seed": seed,
    }
    (folder / "record.json").write_text(json.dumps(record))


def write_history(folder, ends, minutes) -> None:
    (folder / "config.json").write_text(json.dumps({"family": "unet_1d", "training": {"minutes": minutes}}))
    tables = {
        "history.csv": [("epoch", "loss", "val_mse"), *((i, mse, mse) for i, (_, mse) in enumerate(ends, start=1))],
        "spent.csv": [
            ("epoch", "seconds", "joules"),
            *((i, 60 * end, 9.0) for i, (end, _) in enumerate(ends, start=1)),
        ],
    }
    for name, rows in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def errors_of(mean, *, num_seeds=3, num_segments=40, spread=0.0002, seed_spread=0.0, seed=0):
    """Errors around a mean: segments differ much and alike for all trials, seeds and the rest by the spreads."""
    segments = np.random.default_rng(99).exponential(1.0, (1, num_segments, 1))
    generator = np.random.default_rng(seed)
    noise = spread * generator.normal(size=(num_seeds, num_segments, len(SOURCES)))
    noise -= noise.mean(axis=(0, 1))
    seeds = seed_spread * generator.normal(size=(num_seeds, 1, 1))
    return np.abs(mean + 0.0015 * (segments - segments.mean()) + noise + seeds)


def write_whole_search(folder: pathlib.Path) -> pathlib.Path:
    """A search with three representations, and every way in which a trial can end."""
    write_search(folder)
    means = {
        "waveform": [0.0042, 0.0034, 0.00302, 0.003, 0.00301, 0.00299],
        "stft": [0.0036, 0.0028, 0.00235, 0.00226, 0.00228, 0.0024],
        "mel": [0.0038, 0.0031, 0.00262, 0.00255, 0.00256],
    }
    for place, (name, values) in enumerate(means.items()):
        for depth, mean in enumerate(values, start=1):
            factor = {"waveform": 2.2, "stft": 1.0, "mel": 0.8}[name]
            costs = {
                "separation_joules": 0.2 * factor * 1.35**depth,
                "planned_training_bytes": int(factor * 4e8 * 1.7**depth),
            }
            errors = errors_of(mean, seed=10 * place + depth, seed_spread=0.00002)
            write_trial(folder, name, depth, errors, costs=costs)
    write_trial(folder, "waveform", 9, status="FAILED", outcome={"status": "failed", "reason": "out of memory & gone"})
    reason = "its plan of 91 GB exceeds the 80 GB that are free"
    not_fitting = {"status": "not fitting", "reason": reason, "planned_bytes": 91_000_000_000}
    write_trial(folder, "waveform", 12, status="FAILED", outcome=not_fitting)
    write_trial(folder, "stft", 7, errors_of(0.002, num_seeds=1), status="RUNNING")
    return folder

"""Training: from a config and tracks to weights, figures and files in `runs/<name>/`. Shared by train and tuner."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from pipelines.augmentation import make_augmentations
from pipelines.dataset import training_batches, validation_batches
from pipelines.errors import UserError
from pipelines.progress import progress_bar
from pipelines.songs import Track
from sepnet.config import Config
from sepnet.export import export_model
from sepnet.models import builder
from sepnet.models.network import Network
from sepnet.pictures import draw_losses
from sepnet.provenance import provenance
from sepnet.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        metrics: of the best epoch, by name: `val_mse`, `val_mse_<source>`, `val_si_sdr`, `epoch`.
        baselines: the same figures of silence and of mixture/num_sources.
        run: folder of the run.
        saved_model: folder of the exported version.
    """

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    run: pathlib.Path
    saved_model: pathlib.Path


def fit(
    config: Config, tracks: Mapping[str, Sequence[Track]], *, run: pathlib.Path, saved_model: pathlib.Path
) -> Result:
    """Trains the config's model and leaves everything that a run leaves.

    Args:
        config: checked config.
        tracks: tracks by split, all of one rate; "train" and "valid" must not be empty.
        run: folder that is made for the run; it must not exist.
        saved_model: `saved_models/<name>`, which gets a new version.

    Raises:
        UserError: a split is empty, or the depth does not fit the segment.
    """
    sample_rate = tracks["train"][0].sample_rate if tracks["train"] else 0
    check_fit(config, tracks)
    keras.utils.set_random_seed(config.training.seed)
    network = build_network(config, sample_rate)
    trainer = Trainer(network, config.data.sources, _augmentations(config))
    validation = _validation(config, tracks["valid"])
    baselines = measure_baselines(config.data.sources, config.data.num_channels, validation)

    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True)
    (run / "config.json").write_text(config.to_json())
    total_steps = config.training.epochs * config.training.steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(config.training.learning_rate, total_steps)
    trainer.compile(optimizer=keras.optimizers.Adam(schedule), jit_compile=config.training.xla)
    best = _BestWeights(network.model, checkpoints)
    begin = time.monotonic()
    with progress_bar("training", total=total_steps, unit="steps") as advance:
        history = trainer.fit(
            training_batches(
                tracks["train"],
                sources=config.data.sources,
                segment_samples=network.training_samples(round(config.data.segment_seconds * sample_rate)),
                margin_samples=network.margin_samples,
                num_channels=config.data.num_channels,
                batch_size=config.training.batch_size,
                seed=config.training.seed,
                reader=config.data.reader,
            ),
            steps_per_epoch=config.training.steps_per_epoch,
            epochs=config.training.epochs,
            validation_data=validation,
            callbacks=[
                best,
                keras.callbacks.CSVLogger(str(run / "history.csv")),
                keras.callbacks.TensorBoard(str(run / "logs"), write_graph=False),
                _Bar(advance, config.training.epochs),
            ],
            # The dataset is endless and shuffled by itself.
            shuffle=False,
            verbose=0,
        ).history
    seconds = time.monotonic() - begin
    draw_losses(run / "loss.png", history, {name: figures["val_mse"] for name, figures in baselines.items()})

    network.model.load_weights(best.path)
    costs = {"parameters": network.model.count_params(), "training_seconds": seconds}
    summary = {"metrics": best.metrics, "baselines": baselines, "costs": costs, "seed": config.training.seed}
    summary |= provenance()
    contract = {
        "name": saved_model.name,
        "family": config.family,
        "depth": config.model.depth,
        "sources": list(config.data.sources),
        "sample_rate": sample_rate,
        "num_channels": config.data.num_channels,
        "grid_samples": network.grid_samples,
        "context_samples": network.context_samples,
        **summary,
        "config": json.loads(config.to_json()),
    }
    version = export_model(network.model, saved_model, contract)
    (run / "summary.json").write_text(json.dumps({**summary, "saved_model": str(version)}, indent=2))
    return Result(best.metrics, baselines, run, version)


def check_fit(config: Config, tracks: Mapping[str, Sequence[Track]]) -> None:
    """Checks that there is something to train on and that the depth fits the segment.

    Raises:
        UserError: it does not; the message names the largest depth that does.
    """
    for split, remedy in (("train", "put songs into train/"), ("valid", "add a second song, or put songs into valid/")):
        if not tracks[split]:
            raise UserError(f"there is no song to {'train on' if split == 'train' else 'validate on'}: {remedy}")
    segment_samples = round(config.data.segment_seconds * tracks["train"][0].sample_rate)
    largest = config.model.largest_depth(segment_samples)
    if config.model.depth > largest:
        raise UserError(
            f"--depth {config.model.depth} does not fit a segment of {config.data.segment_seconds} s "
            f"({segment_samples} samples): the largest depth is {largest}; lower --depth or raise --segment-seconds"
        )


def build_network(config: Config, sample_rate: int) -> Network:
    """Builds the config's model, untrained."""
    return builder(config.family)(
        sources=config.data.sources,
        num_channels=config.data.num_channels,
        sample_rate=sample_rate,
        **dataclasses.asdict(config.model),
    )


def measure_baselines(sources: Sequence[str], num_channels: int, validation) -> dict[str, dict[str, float]]:
    """Measures, as for a model, the two answers that need none: silence, and an equal share of the mixture."""
    mixture = keras.Input((None, num_channels), name="mixture")
    answers = {"silence": mixture * 0.0, "mixture/num_sources": mixture / len(sources)}
    baselines = {}
    for name, answer in answers.items():
        model = keras.Model(mixture, {source: answer for source in sources})
        trainer = Trainer(Network(model, grid_samples=1, context_samples=0, core=model), sources)
        trainer.compile()
        figures = trainer.evaluate(validation, verbose=0, return_dict=True)
        baselines[name] = {f"val_{key}": value for key, value in figures.items() if key != "loss"}
    return baselines


def _augmentations(config: Config) -> list[keras.layers.Layer]:
    training = config.training
    return make_augmentations(
        remix=training.remix,
        random_gain_db=training.random_gain_db,
        channel_swap=training.channel_swap,
        polarity=training.polarity,
        seed=training.seed,
    )


def _validation(config: Config, tracks: Sequence[Track]):
    return validation_batches(
        tracks,
        sources=config.data.sources,
        segment_samples=round(config.data.validation_seconds * tracks[0].sample_rate),
        num_segments=config.data.validation_segments,
        num_channels=config.data.num_channels,
        batch_size=min(config.training.batch_size, 4),
        reader=config.data.reader,
    )


class _BestWeights(keras.callbacks.Callback):
    """Keeps the separator's weights of the last epoch, and those of the epoch with the lowest `val_mse`."""

    def __init__(self, separator: keras.Model, folder: pathlib.Path):
        super().__init__()
        self.separator = separator
        self.path = folder / "best.weights.h5"
        self.last = folder / "last.weights.h5"
        self.metrics: dict[str, Any] = {}

    def on_epoch_end(self, epoch, logs=None):
        self.separator.save_weights(self.last)
        if not self.metrics or logs["val_mse"] < self.metrics["val_mse"]:
            self.separator.save_weights(self.path)
            figures = {name: float(value) for name, value in logs.items() if name.startswith("val_") and name != "val_loss"}
            self.metrics = {"epoch": epoch + 1, **figures}


class _Bar(keras.callbacks.Callback):
    """Moves the progress bar with each step and shows epoch, loss and `val_mse`."""

    def __init__(self, advance, epochs: int):
        super().__init__()
        self.advance = advance
        self.epochs = epochs
        self.epoch = 0
        self.val_mse = ""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        self.advance(1, f"epoch {self.epoch}/{self.epochs} loss {logs['loss']:.5f}{self.val_mse}")

    def on_epoch_end(self, epoch, logs=None):
        self.val_mse = f" val_mse {logs['val_mse']:.5f}"
        self.advance(0, f"epoch {self.epoch}/{self.epochs} loss {logs['loss']:.5f}{self.val_mse}")

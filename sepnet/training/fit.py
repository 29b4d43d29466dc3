"""Training: from a config and tracks to weights, figures and files in `runs/<name>/`. Shared by train and tuner."""

import contextlib
import dataclasses
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from pipelines.batches import AUGMENTATIONS
from pipelines.batches.augmentation import RandomSnr, make_augmentations
from pipelines.batches.dataset import training_batches, validation_batches
from pipelines.copies.tracks import SNR_DB
from pipelines.errors import UserError
from pipelines.progress import progress_bar
from pipelines.songs.layouts import Track
from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.config.training import OPTIMIZERS, Training
from sepnet.measures.baselines import BASELINES
from sepnet.measures.energy import EnergyMeter
from sepnet.measures.memory import available_bytes
from sepnet.measures.provenance import provenance
from sepnet.models.keras_settings import compiled, precision
from sepnet.models.network import Network
from sepnet.training.callbacks import Bar, Board, Budget, Halt, Recorder, Swap
from sepnet.training.devices import several_devices
from sepnet.training.losses import make_loss
from sepnet.training.optimizers import with_averages
from sepnet.training.schedule import Schedule
from sepnet.training.trainer import Trainer

VALIDATION_BATCH_SIZE = 4


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Attributes:
        metrics: of the best epoch, by name: `val_mse`, `val_mse_<source>`, `val_si_sdr`, `epoch`.
        baselines: the same figures of silence and of mixture/num_sources.
        run: the run.
        validation: the segments that they were measured on.
    """

    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    run: Run
    validation: tf.data.Dataset


def fit(
    config: Config,
    tracks: Mapping[str, Sequence[Track]],
    *,
    run: Run,
    resume: bool = False,
) -> Result:
    """Trains the config's model and writes all files of the run; `sepnet.export.write` makes a SavedModel of it.

    Args:
        config: checked config.
        tracks: tracks by split, all of one rate; "train" and "valid" must not be empty.
        run: the run; its folder is made, unless it is resumed.
        resume: goes on from the run's last checkpoint.

    Raises:
        UserError: a split is empty, the depth does not fit the segment, the checkpoint cannot be used, a loss, a figure
            or a weight is no number, or there is not enough memory.
    """
    check_fit(config, tracks)
    with _explained(), precision(config.training.precision):
        return _fit(config, tracks, run, resume)


def _fit(config: Config, tracks: Mapping[str, Sequence[Track]], run: Run, resume: bool) -> Result:
    training, sample_rate = config.training, tracks["train"][0].sample_rate
    keras.utils.set_random_seed(training.seed)
    scope = several_devices(training.devices)
    with EnergyMeter() as meter:
        with scope():
            network = config.build(sample_rate)
            snr_db = config.data.snr_range or (SNR_DB if tracks["train"][0].is_recording else None)
            trainer = make_trainer(config, network, snr_db)
        validation = make_validation(config, tracks["valid"])
        baselines = measure_baselines(config, validation)
        lines = {name: figures["val_mse"] for name, figures in baselines.items()}
        recorder = Recorder(run, lines, training.patience, meter)
        if resume:
            recorder.restore(trainer)
        else:
            run.write_config(config)
        with scope():
            _train(config, network, trainer, recorder, tracks["train"], validation)
        costs = {
            "parameters": network.model.count_params(),
            "training_seconds": recorder.seconds,
            "training_joules": recorder.joules,
            "peak_bytes": recorder.peak_bytes,
        }
        measured_by = meter.describe()
    summary = {
        "family": config.family,
        "depth": config.model.depth,
        "sources": list(config.data.parts),
        "sample_rate": sample_rate,
        "num_channels": config.data.num_channels,
        "metrics": recorder.best,
        "baselines": baselines,
        "costs": costs,
        "meter": measured_by,
        "seed": training.seed,
        "backend": keras.backend.backend(),
        **provenance(),
    }
    run.write_summary(summary)
    return Result(recorder.best, baselines, run, validation)


def _train(config: Config, network: Network, trainer: Trainer, recorder: Recorder, tracks, validation) -> None:
    """Trains from the epoch that the recorder has reached to the end of the budget."""
    training, sample_rate = config.training, tracks[0].sample_rate
    done, budget = recorder.num_epochs, Budget(recorder, config)
    batches = training_batches(
        tracks,
        stems=config.data.stems,
        segment_samples=network.training_samples(config.data.segment_samples(sample_rate)),
        margin_samples=network.margin_samples,
        num_channels=config.data.num_channels,
        batch_size=training.batch_size,
        seed=training.seed,
        first_step=done * training.steps_per_epoch,
        reader=config.data.reader,
    )
    with progress_bar("training", total=budget.total, unit=budget.unit) as advance:
        trainer.fit(
            batches,
            steps_per_epoch=training.steps_per_epoch,
            initial_epoch=done,
            epochs=done if recorder.has_stalled else budget.last_epoch,
            validation_data=validation,
            callbacks=[
                # First, so that what the others keep are the averaged weights.
                *([Swap(swap_on_epoch=True)] if training.ema else []),
                Halt(recorder),
                recorder,
                budget,
                Board(recorder, next(iter(validation)), sample_rate),
                Bar(advance, budget),
            ],
            # The dataset is endless and shuffled by itself.
            shuffle=False,
            verbose=0,
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns the back ends' errors of memory, and those that tf.data wraps around a `UserError`, into a `UserError`."""
    try:
        yield
    except tf.errors.UnknownError as error:
        told = re.search(rf"{UserError.__name__}: (.+)", str(error))
        if not told:
            raise
        raise UserError(told[1]) from error
    except (MemoryError, tf.errors.ResourceExhaustedError, RuntimeError) as error:
        # JAX has no class for it.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "there is not enough memory for this training; lower --batch-size, --segment-seconds, --base-filters or "
            "--depth, or save some with --recompute or --precision mixed_bfloat16 (`python -m sepnet.plan` says what a "
            "depth takes)"
        ) from error


def check_fit(config: Config, tracks: Mapping[str, Sequence[Track]]) -> None:
    """Checks that there is something to train on, that the depth fits the segment, and that options go together.

    Raises:
        UserError: there is no song to train or to validate on, the depth does not fit (the message names the largest
            that does), or options do not go together.
    """
    for split, remedy in (("train", "put songs into train/"), ("valid", "add a second song, or put songs into valid/")):
        if not tracks[split]:
            raise UserError(f"there is no song to {'train on' if split == 'train' else 'validate on'}: {remedy}")
    sample_rate = tracks["train"][0].sample_rate
    config.check_depth(sample_rate)
    segment_samples = config.data.segment_samples(sample_rate)
    training = config.training
    batch_bytes = 4 * training.batch_size * segment_samples * config.data.num_channels * len(config.data.stems)
    if batch_bytes > available_bytes("cpu"):
        raise UserError(
            f"a batch of {training.batch_size} segments of {config.data.segment_seconds:g} s alone takes "
            f"{batch_bytes / 1e9:,.1f} GB, more memory than there is; lower --batch-size or --segment-seconds"
        )
    training.check_together()
    weights = training.source_weights
    num_sources = len(config.data.parts)
    if weights is not None and len(weights) != num_sources:
        raise UserError(f"--source-weights has {len(weights)} values for {num_sources} sources; give one for each")


def make_trainer(config: Config, network: Network, snr_db: tuple[float, float] | None = None) -> Trainer:
    """Wraps a network for training, with augmentations, loss and optimizer.

    Args:
        config: the config that the network was built of.
        network: to train.
        snr_db: the lowest and the highest signal-to-noise ratio of mixtures; None leaves them as they come.
    """
    training = config.training
    augmentations = make_augmentations(seed=training.seed, **training.augmentations)
    loss = make_loss(training.loss, training.source_weights)
    parts = config.data.parts
    arguments = network, list(parts), augmentations, loss
    options = {"num_parts": [len(stems) for stems in parts.values()]}
    if snr_db:
        # The seeds before this one are those of the augmentations.
        options["random_snr"] = RandomSnr(snr_db, training.seed + len(AUGMENTATIONS), network.margin_samples)
    adds_up = _adds_up_itself(training)
    if adds_up:
        from sepnet.training.accumulation import ReplicaTrainer

        trainer = ReplicaTrainer(
            *arguments, **options, num_replicas=training.devices, accumulation=training.accumulation
        )
    else:
        # JAX sees one batch whole, wherever its parts lie.
        num_replicas = training.devices if keras.backend.backend() == "tensorflow" else 1
        trainer = Trainer(*arguments, **options, num_replicas=num_replicas)
    trainer.compile(
        optimizer=with_averages(pkgutil.resolve_name(OPTIMIZERS[training.optimizer].path))(
            _learning_rate(config),
            weight_decay=training.weight_decay,
            use_ema=training.ema > 0,
            # Keras averages at every batch, also where the optimizer adds gradients up.
            ema_momentum=training.ema ** (training.accumulation if adds_up else 1) if training.ema else None,
            # Each replica shortens its own gradient, and the shortened ones are added up.
            global_clipnorm=training.clip_norm / trainer.num_replicas if training.clip_norm else None,
            gradient_accumulation_steps=training.accumulation if training.accumulation > 1 and not adds_up else None,
        ),
        jit_compile=compiled(training.xla),
    )
    # TensorFlow would trace the first step twice to make its variables there.
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def _adds_up_itself(training: Training) -> bool:
    """Says if the trainer adds up gradients of batches, not the optimizer; see `sepnet.training.accumulation`."""
    return training.accumulation > 1 and training.devices > 1 and keras.backend.backend() == "tensorflow"


def measure_baselines(config: Config, validation: tf.data.Dataset) -> dict[str, dict[str, float]]:
    """Measures the baselines as a model is: the `val_` metrics of a run, by the baseline's name."""
    parts = config.data.parts
    mixture = keras.Input((None, config.data.num_channels), name="mixture")
    baselines = {}
    for name, estimate in BASELINES.items():
        model = keras.Model(mixture, dict.fromkeys(parts, estimate(mixture, len(parts))))
        network = Network(model, grid_samples=1, reach_samples=0, core=model)
        trainer = Trainer(network, list(parts), num_parts=[len(stems) for stems in parts.values()])
        trainer.compile(jit_compile=False)
        figures = trainer.evaluate(validation, verbose=0, return_dict=True)
        baselines[name] = {f"val_{key}": value for key, value in figures.items() if key != "loss"}
    return baselines


def _learning_rate(config: Config):
    """A schedule over the batches of the run; how many they are is not known where time ends it."""
    training = config.training
    if training.minutes or training.joules:
        return config.learning_rate
    num_steps = training.epochs * training.steps_per_epoch
    # An optimizer that does not add up itself sees updates alone.
    per_call = training.accumulation if _adds_up_itself(training) else 1
    return Schedule(config.learning_rate, training.schedule, num_steps / per_call, training.warmup_steps / per_call)


def make_validation(config: Config, tracks: Sequence[Track]) -> tf.data.Dataset:
    """The fixed segments that `val_mse` is measured on, the same for every model; see `validation_batches`."""
    return validation_batches(
        tracks,
        stems=config.data.stems,
        segment_samples=round(config.data.validation_seconds * tracks[0].sample_rate),
        num_segments=config.data.validation_segments,
        num_channels=config.data.num_channels,
        batch_size=VALIDATION_BATCH_SIZE,
        # JAX validates on one.
        num_devices=config.training.devices if keras.backend.backend() == "tensorflow" else 1,
        reader=config.data.reader,
    )

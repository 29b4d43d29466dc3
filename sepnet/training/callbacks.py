"""Callbacks of training: checkpoints, history, pictures, the budget, the progress bar, and a halt on divergence."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import keras
import numpy as np

from pipelines.errors import UserError
from pipelines.files import whole_file
from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.measures.energy import EnergyMeter
from sepnet.reports.pictures import draw_losses, draw_separation
from sepnet.training.checkpoints import load_state, save_state, save_weights
from sepnet.training.measure import peak_bytes
from sepnet.training.schedule import rate_left


class Swap(keras.callbacks.SwapEMAWeights):
    """Puts averaged weights into the model at the end of an epoch, and the others back at the beginning of the next.

    After the last epoch Keras would forget the others, with which a run that gets more epochs goes on.
    """

    def set_params(self, params: Mapping[str, Any]):
        super().set_params({**params, "epochs": math.inf})


class Recorder(keras.callbacks.Callback):
    """Writes the files of a run after every epoch, and stops training that no longer helps.

    Writes `checkpoints/best.weights.h5` (the separator at its lowest `val_mse`), `checkpoints/last.npz` (all of the
    run's state), `history.csv`, `spent.csv` and `loss.png`.

    Args:
        run: the run.
        baselines: `val_mse` by the baseline's name, for the picture.
        patience: epochs without a lower `val_mse` after which training ends; 0 for never.
        meter: counter of joules.
    """

    def __init__(self, run: Run, baselines: Mapping[str, float], patience: int, meter: EnergyMeter):
        super().__init__()
        self.run = run
        self.baselines = baselines
        self.patience = patience
        self.history: dict[str, list[float]] = {}
        self.spent: list[tuple[float, float]] = []
        self.meter = meter
        self._before = {"seconds": 0.0, "joules": 0.0, "peak_bytes": 0}
        # Of the time and the energy, from the moment at which training begins.
        self._begin: dict[str, float] | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, in all sittings of the run up to their last checkpoints."""
        return self._before["seconds"] + self._since_begin("seconds")

    @property
    def joules(self) -> float:
        """Joules of CPU and GPUs in that time."""
        return self._before["joules"] + self._since_begin("joules")

    def _since_begin(self, name: str) -> float:
        return self._now()[name] - self._begin[name] if self._begin else 0.0

    @property
    def peak_bytes(self) -> int:
        """The most memory that any sitting has held, up to its last checkpoint."""
        return max(self._before["peak_bytes"], peak_bytes())

    def _now(self) -> dict[str, float]:
        return {"seconds": time.monotonic(), "joules": self.meter.joules}

    @property
    def num_epochs(self) -> int:
        """Epochs that are done."""
        return len(self.history.get("val_mse", ()))

    @property
    def best(self) -> dict[str, Any]:
        """The figures of the best epoch, counted from 1."""
        # All are finite: see `on_epoch_end`.
        index = int(np.argmin(self.history["val_mse"]))
        figures = {name: values[index] for name, values in self.history.items()}
        return {"epoch": index + 1} | {name: value for name, value in figures.items() if name.startswith("val_")}

    @property
    def is_best(self) -> bool:
        """True if the epoch that was recorded last is the best so far."""
        return self.best["epoch"] == self.num_epochs

    @property
    def has_stalled(self) -> bool:
        """True if the last epochs, as many as the patience, have not lowered `val_mse`."""
        return 0 < self.patience <= self.num_epochs and self.num_epochs - self.best["epoch"] >= self.patience

    @property
    def state(self) -> dict[str, Any]:
        """Plain values from which a run goes on, beside its trainer's variables."""
        taken = {"seconds": self.seconds, "joules": self.joules, "peak_bytes": self.peak_bytes}
        return {"history": self.history, "spent": self.spent, **taken}

    def restore(self, trainer: keras.Model) -> None:
        """Brings trainer and history to where the last checkpoint left them.

        Raises:
            UserError: there is no checkpoint, or it does not belong to this run.
        """
        state = load_state(self.run.last_state, trainer)
        # Older versions did not write all of it.
        self.spent = state.get("spent", [(math.nan, math.nan)] * len(state["history"]["val_mse"]))
        self.history, self._before = state["history"], {name: state.get(name, 0) for name in self._before}
        # A kill may have come between the checkpoint and these.
        best, last = self.run.best_weights, self.run.last_state
        if self.is_best and not (best.exists() and best.stat().st_mtime_ns >= last.stat().st_mtime_ns):
            save_weights(best, trainer.model)
        self.run.write_history(self.history, self.spent)
        # Against underflow, Keras wraps the optimizer under mixed_float16.
        if getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer).use_ema:
            # At the end of an epoch, averaged weights and weights had changed places.
            swap = Swap()
            swap.set_model(trainer)
            swap.on_test_begin()

    def on_train_begin(self, logs=None):
        self._begin = self._now()

    def refuse(self, what: str) -> NoReturn:
        """Ends a run that has diverged; its files stay as the last good epoch left them.

        Raises:
            UserError: always; it names the figure that is no number, the step, and the weights that are good.
        """
        good = "of good weights there are none"
        if self.num_epochs:
            good = f"the last good weights are in {self.run.best_weights}, of epoch {self.best['epoch']}"
        raise UserError(
            f"{what} in epoch {self.num_epochs + 1}, at step {int(self.model.optimizer.iterations)}, so nothing is "
            f"exported; {good}; start again with a lower --learning-rate"
        )

    def on_epoch_end(self, epoch, logs=None):
        # `val_mse` first: the error names the figure that counts, if that is one of them.
        for name in sorted(logs, key=lambda name: name != "val_mse"):
            if not math.isfinite(logs[name]):
                self.refuse(f"the {name} is {logs[name]}")
        for weight in self.model.model.weights:
            if not np.isfinite(np.asarray(weight)).all():
                self.refuse(f"the weights {weight.path} hold NaN or infinity")
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        self.spent.append((self.seconds, self.joules))
        # First: weights of an epoch that no file knows would never be exchanged where it comes out otherwise.
        save_state(self.run.last_state, self.model, self.state)
        if self.is_best:
            save_weights(self.run.best_weights, self.model.model)
        self.run.write_history(self.history, self.spent)
        with whole_file(self.run.loss_picture) as temporary:
            draw_losses(temporary, self.history, self.baselines)
        if self.has_stalled:
            self.model.stop_training = True


class Halt(keras.callbacks.Callback):
    """Stops at the first loss that is no number, long before an epoch ends."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            rate = float(self.model.optimizer.learning_rate)
            self.recorder.refuse(f"the loss is {logs['loss']}, with a learning rate of {rate:.2g},")


class Budget(keras.callbacks.Callback):
    """Ends a run after a number of epochs, or after a time or an energy, in the middle of an epoch then.

    Over these the learning rate falls from batch to batch, by the share that is spent.

    Args:
        recorder: of the run; counts its time, joules and epochs.
        config: config of the run.
    """

    def __init__(self, recorder: Recorder, config: Config):
        super().__init__()
        self.recorder = recorder
        self.training = config.training
        self.learning_rate = config.learning_rate
        self.unit = "s" if self.training.minutes else "J" if self.training.joules else "steps"
        self._num_steps = recorder.num_epochs * self.training.steps_per_epoch

    @property
    def in_epochs(self) -> bool:
        return self.unit == "steps"

    @property
    def total(self) -> float:
        """The whole budget, in `unit`."""
        if self.in_epochs:
            return self.training.epochs * self.training.steps_per_epoch
        return 60 * self.training.minutes if self.training.minutes else self.training.joules

    @property
    def spent(self) -> float:
        """The part of it that is spent, in all sittings of the run."""
        if self.in_epochs:
            return self._num_steps
        return self.recorder.seconds if self.training.minutes else self.recorder.joules

    @property
    def last_epoch(self) -> int:
        """The epoch, counted from 1, after which the run ends at the latest."""
        if self.in_epochs:
            return self.training.epochs
        # Earlier sittings may have spent it all.
        return sys.maxsize if self.spent < self.total else self.recorder.num_epochs

    def on_train_batch_begin(self, batch, logs=None):
        if not self.in_epochs:
            share = min(self.spent / self.total, 1.0)
            left = rate_left(self.training.schedule, share, self._num_steps, self.training.warmup_steps)
            self.model.optimizer.learning_rate = self.learning_rate * float(left)

    def on_train_batch_end(self, batch, logs=None):
        self._num_steps += 1
        if not self.in_epochs and self.spent >= self.total:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        # By what the recorder, which comes before, has written down: validation may have spent the rest.
        seconds, joules = self.recorder.spent[-1]
        if not self.in_epochs and (seconds if self.training.minutes else joules) >= self.total:
            self.model.stop_training = True


class Bar(keras.callbacks.Callback):
    """Moves the progress bar with each step and shows epoch, loss and `val_mse`; a line for each epoch without a bar.

    Args:
        advance: moves the bar by an amount and shows a text.
        budget: of the run.
    """

    def __init__(self, advance: Callable[..., None], budget: Budget):
        super().__init__()
        self.advance = advance
        self.budget = budget
        self.shown = 0.0
        self.epoch = 0
        self.val_mse = ""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        self._show(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.val_mse = f" val_mse {logs['val_mse']:.5f}"
        self._show(logs)
        if not sys.stderr.isatty():
            print(self._text(logs), file=sys.stderr, flush=True)

    def _show(self, logs) -> None:
        spent = self.budget.spent
        self.advance(spent - self.shown, self._text(logs))
        self.shown = spent

    def _text(self, logs) -> str:
        of = f"/{self.budget.last_epoch}" if self.budget.in_epochs else ""
        return f"epoch {self.epoch}{of} loss {logs['loss']:.5f}{self.val_mse}"


class Board(keras.callbacks.Callback):
    """TensorBoard logs: the figures of each epoch, and of the best so far a validation segment, heard and seen.

    Drawing takes a second, and of networks that learn quickly an epoch takes three: only epochs whose weights are kept
    have an example.

    Args:
        recorder: of the run; comes before this callback.
        example: a batch of `pipelines.batches.dataset.validation_batches`; its first segment is taken.
        sample_rate: Hz.
    """

    def __init__(self, recorder: Recorder, example: Mapping[str, Any], sample_rate: int):
        super().__init__()
        import tensorflow as tf

        self.recorder = recorder
        self.writer = tf.summary.create_file_writer(os.fsencode(recorder.run.logs))
        self.example = {name: np.asarray(value[:1]) for name, value in example.items()}
        self.sample_rate = sample_rate

    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        with self.writer.as_default(step=epoch + 1):
            for name, value in logs.items():
                tf.summary.scalar(name, float(value))
            if self.recorder.is_best:
                self._write_example()
        self.writer.flush()

    def _write_example(self) -> None:
        import tensorflow as tf

        sources, outputs = self.model.sources, self.model(self.example, training=False)
        true, estimates = (np.asarray(outputs[name])[0] for name in ("sources", "estimates"))
        mixture = self.example["mixture"][0] / np.float32(2**15)
        stems = [{source: audio[:, index] for index, source in enumerate(sources)} for audio in (true, estimates)]
        picture = self.recorder.run.logs / "example.png"
        draw_separation(picture, mixture, *stems, self.sample_rate)
        for source, audio in stems[1].items():
            tf.summary.audio(source, audio[None], self.sample_rate)
        tf.summary.image("spectrograms", tf.io.decode_png(picture.read_bytes())[None])

"""The Keras model that is trained: int16 stems in, augmented and mixed on the device, separated, and compared."""

import itertools
from collections.abc import Callable, Sequence

import keras
from keras import ops

from sepnet.measures.metrics import is_heard, si_sdr_db, squared_errors
from sepnet.models.network import Network
from sepnet.training.devices import whole_batches
from sepnet.training.losses import make_loss

FULL_SCALE = 32_768.0


class Trainer(keras.Model):
    """Wraps a separator for `fit` and `evaluate`; works on every Keras backend.

    Its inputs are the batches of `pipelines.batches.dataset`: `stems` int16
    `[batch, num_stems, num_samples, num_channels]` and, where the song's own mixture is to be separated, `mixture`
    int16 `[batch, num_samples, num_channels]`; else the mixture is the sum of the (augmented) stems. In training,
    `stems` hold the network's margin as well. A source is one stem or the sum of several.

    Logs: `loss`; `mse`, the mean squared error on the waveform over segments, sources, channels and samples;
    `mse_<source>` for each source; and `si_sdr`, in dB, over the stems that are not silent.

    Args:
        network: trained network; in training its core runs, in evaluation the whole model.
        sources: names of the sources, in the order of the stems in the batches.
        augmentations: layers over the stems that act in training.
        loss: `(sources, estimates) -> scalar`, the mean squared error unless given.
        num_replicas: devices that TensorFlow splits every batch over.
        num_parts: for each source, how many stems of the batches add up to it; one unless given.
        random_snr: a layer over the sources that acts in training.
    """

    def __init__(
        self,
        network: Network,
        sources: Sequence[str],
        augmentations: Sequence[keras.layers.Layer] = (),
        loss: Callable | None = None,
        num_replicas: int = 1,
        num_parts: Sequence[int] | None = None,
        random_snr: keras.layers.Layer | None = None,
    ):
        super().__init__(name="trainer")
        self.model = network.model
        self.core = network.core
        self.margin_samples = network.margin_samples
        self.sources = list(sources)
        self.num_parts = list(num_parts or [1] * len(self.sources))
        self.augmentations = list(augmentations)
        self.random_snr = random_snr
        self.objective = loss or make_loss("mse")
        self.num_replicas = num_replicas
        self.mse = keras.metrics.Mean(name="mse")
        self.source_mse = [keras.metrics.Mean(name=f"mse_{source}") for source in self.sources]
        self.si_sdr = keras.metrics.Mean(name="si_sdr")

    def call(self, inputs, training=False):
        stems = ops.cast(ops.transpose(inputs["stems"], (0, 2, 1, 3)), "float32") / FULL_SCALE
        for augmentation in self.augmentations:
            stems = augmentation(stems, training=training)
        sources = self._add_parts(stems) if max(self.num_parts) > 1 else stems
        if self.random_snr is not None:
            sources = self.random_snr(sources, training=training)
        if "mixture" in inputs:
            mixture = ops.cast(inputs["mixture"], "float32") / FULL_SCALE
        else:
            mixture = ops.sum(sources, axis=2)
        outputs = (self.core if training else self.model)(mixture, training=training)
        estimates = ops.stack([ops.cast(outputs[source], "float32") for source in self.sources], axis=2)
        if training and self.margin_samples:
            sources = sources[:, self.margin_samples : -self.margin_samples]
        return {"sources": sources, "estimates": estimates}

    def evaluate(self, *arguments, **keywords):
        # The last batch may have fewer segments than there are devices.
        with whole_batches():
            return super().evaluate(*arguments, **keywords)

    def _add_parts(self, stems):
        """Adds stems up to sources: `[batch, num_samples, num_stems, num_channels]` to `[..., num_sources, ...]`."""
        ends = itertools.accumulate(self.num_parts)
        parts = zip(ends, self.num_parts, strict=True)
        return ops.stack([ops.sum(stems[:, :, end - count : end], axis=2) for end, count in parts], axis=2)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # TensorFlow adds the gradients of its replicas up.
        return self.objective(y_pred["sources"], y_pred["estimates"]) / self.num_replicas

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        sources, estimates = y_pred["sources"], y_pred["estimates"]
        errors = squared_errors(sources, estimates)
        self.mse.update_state(errors)
        for index, metric in enumerate(self.source_mse):
            metric.update_state(errors[:, index])
        heard = ops.cast(is_heard(sources), "float32")
        self.si_sdr.update_state(si_sdr_db(sources, estimates), sample_weight=heard)
        return self.get_metrics_result()

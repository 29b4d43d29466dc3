"""Builds networks that are only counted: without memory for their weights."""

import contextlib

import keras

from sepnet.config.config import Config
from sepnet.models.keras_settings import precision
from sepnet.models.network import Network


def untrained(config: Config, sample_rate: int) -> Network:
    """Builds the network of a config, without memory for its weights (with TensorFlow).

    It is in mixed precision whatever the config says, which shows what can be: the same network then serves to find
    out what a config costs with another batch or precision, or with recomputation.
    """
    with precision("mixed_bfloat16"), _weightless():
        return config.build(sample_rate)


def _weightless():
    """A TensorFlow graph that never runs, in which weights take no memory. Other backends have nothing like it."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.Graph().as_default()

"""One model on several GPUs of a host: every batch is split over them, and their gradients are averaged."""

import contextlib
from collections.abc import Callable, Iterator

import keras

from pipelines.errors import UserError


def several_devices(num_devices: int) -> Callable:
    """Makes the scope of the first `num_devices` GPUs of this host, in which models are built, compiled and trained.

    Args:
        num_devices: 1 leaves everything as it is.

    Returns:
        A function that gives a context manager, each time another one for the same devices.

    Raises:
        UserError: this host has fewer devices.
    """
    if num_devices == 1:
        return contextlib.nullcontext
    devices = _devices("gpu") or _devices("cpu")
    if len(devices) < num_devices:
        raise UserError(f"--devices is {num_devices}, and this host has {len(devices)} ({', '.join(devices)})")
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(devices=devices[:num_devices], auto_shard_dataset=False).scope

    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices[:num_devices]).scope


@contextlib.contextmanager
def whole_batches() -> Iterator[None]:
    """While the block runs, JAX splits no batches, so that they may have any size."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _devices(kind: str) -> list[str]:
    try:
        return keras.distribution.list_devices(kind)
    except RuntimeError:
        # JAX raises for a kind of which there is none.
        return []

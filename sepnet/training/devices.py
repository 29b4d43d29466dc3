"""One model on several GPUs of a host: every batch is split over them, and their gradients are averaged."""

import contextlib

import keras

from pipelines.errors import UserError


def several_devices(num_devices: int):
    """Makes the block in which models are built and compiled for the first `num_devices` GPUs of this host.

    Args:
        num_devices: 1 leaves everything as it is.

    Returns:
        A context manager.

    Raises:
        UserError: this host has fewer devices, or the backend cannot use several.
    """
    if num_devices == 1:
        return contextlib.nullcontext()
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise UserError(f"--devices {num_devices} needs tensorflow or jax as the backend, not {backend}")
    devices = _devices("gpu") or _devices("cpu")
    if len(devices) < num_devices:
        raise UserError(f"--devices is {num_devices}, and this host has {len(devices)} ({', '.join(devices)})")
    if backend == "jax":
        return keras.distribution.DataParallel(devices=devices[:num_devices], auto_shard_dataset=False).scope()

    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices[:num_devices]).scope()


def _devices(kind: str) -> list[str]:
    try:
        return keras.distribution.list_devices(kind)
    except RuntimeError:
        # JAX raises for a kind of which there is none.
        return []

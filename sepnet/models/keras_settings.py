"""Keras as this project needs it, whatever the user's environment and settings file (`~/.keras/keras.json`) say."""

import contextlib
import os
from collections.abc import Iterator

from pipelines.errors import UserError

BACKENDS = ("tensorflow", "jax")


def load_keras() -> None:
    """Imports Keras with the axes and the precision that the networks are written for; the back end stays the user's.

    Commands call it before anything else imports Keras, as networks, figures (`sepnet.measures.metrics`) and KerasTuner
    do. In Python, whoever builds a network does so.

    Raises:
        UserError: the back end that is asked for is none of the project's, or is not installed, or the settings file
            cannot be used.
    """
    # Without AVX-512 VNNI, TensorFlow leaves oneDNN off, whose gradients of convolutions take half as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # It is for code that was written for Keras 2, and another package would take the place of this one.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    asked_for = "KERAS_BACKEND" if "KERAS_BACKEND" in os.environ else "~/.keras/keras.json"
    expected = f"expected one of {', '.join(BACKENDS)}: set KERAS_BACKEND"
    try:
        import keras
    except ModuleNotFoundError as error:
        raise UserError(
            f"the back end of Keras that {asked_for} asks for is not installed: there is no {error.name}; {expected}, "
            "or install it (pip install 'sepnet[jax]')"
        ) from error
    except (ValueError, AttributeError, AssertionError) as error:
        raise UserError(f"Keras cannot start as {asked_for} asks ({error}); mend that, or {expected}") from error
    if keras.config.backend() not in BACKENDS:
        raise UserError(f"the back end of Keras is {keras.config.backend()}, by {asked_for}; {expected}")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")


def compiled(xla: bool) -> bool:
    """The `jit_compile` of `keras.Model.compile`: as `xla` says, and always on JAX.

    Uncompiled, JAX sends its operations off one by one, which takes about twice as long.
    """
    import keras

    return xla or keras.config.backend() == "jax"


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers that are made while the block runs have this dtype policy of Keras, "float32" or "mixed_bfloat16" say."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

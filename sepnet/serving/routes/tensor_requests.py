"""Requests for `tensor` as what they hold: those of equal length, of several clients too, are one batch of a model."""

import numpy as np

from sepnet.export.signatures import BYTES_SUFFIX, SERVING_DEFAULT, TENSOR
from sepnet.export.tensor_proto import write_tensor
from sepnet.serving.engine.runner import Arrays
from sepnet.serving.engine.versions import LoadedVersion


def unpacked(version: LoadedVersion, signature: str, inputs: Arrays) -> tuple[str, Arrays]:
    """Chooses the signature and the inputs to run for a request.

    In the graph of `tensor`, rows run one after the other. Where those of a request are equally long, `serving_default`
    takes them as they are, together with other requests. All else, what is malformed too, is left to the graph.
    """
    import tensorflow as tf

    if signature != TENSOR:
        return signature, inputs
    try:
        rows = [tf.io.parse_tensor(row, tf.float32).numpy() for row in inputs[f"mixture{BYTES_SUFFIX}"]]
    except tf.errors.InvalidArgumentError:
        return signature, inputs
    shape = rows[0].shape
    fits = len(shape) == 2 and shape[0] > 0 and shape[1] == version.contract["num_channels"]
    if not fits or any(row.shape != shape or not np.isfinite(row).all() for row in rows):
        return signature, inputs
    return SERVING_DEFAULT, {"mixture": np.stack(rows)}


def packed(outputs: Arrays) -> Arrays:
    """The outputs of `serving_default` as those of `tensor`."""
    answer = {}
    for source, batch in outputs.items():
        answer[f"{source}{BYTES_SUFFIX}"] = rows = np.empty(len(batch), object)
        rows[:] = [write_tensor(row) for row in batch]
    return answer

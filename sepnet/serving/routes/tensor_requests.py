"""Requests for `tensor` as what they hold: those of equal length, of several clients too, are one batch of a model."""

from collections.abc import Iterable

import numpy as np

from sepnet.export.signatures import BYTES_SUFFIX, SERVING_DEFAULT, TENSOR
from sepnet.export.tensor_proto import write_tensor
from sepnet.serving.engine.errors import BAD_REQUEST, ApiError
from sepnet.serving.engine.runner import Arrays
from sepnet.serving.engine.versions import LoadedVersion


def check_whole(protos: Iterable[bytes]) -> None:
    """Checks that serialized tensors hold all values of their shapes: else TensorFlow repeats the last one.

    Raises:
        ApiError: one does not, or is no tensor of two dimensions.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    for proto in protos:
        try:
            shape = [dim.size for dim in TensorProto.FromString(proto).tensor_shape.dim]
        except DecodeError as error:
            raise ApiError(BAD_REQUEST, f"mixture_bytes holds no TensorProto: {error}") from error
        if len(shape) != 2 or 4 * shape[0] * shape[1] > len(proto):
            raise ApiError(
                BAD_REQUEST,
                f"the tensor has {len(shape)} dimensions, {shape[:2]} the first, and {len(proto)} bytes; expected "
                "[num_samples, num_channels], and 4 bytes for each value",
            )


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

"""Float32 tensors as serialized `TensorProto`, as `tf.io.serialize_tensor` writes them, without TensorFlow."""

import math
from collections.abc import Sequence

import numpy as np

# `dtype` DT_FLOAT, then the tags of `tensor_shape`, `tensor_content`, and inside of the shape `dim` and `size`.
DTYPE_FLOAT = b"\x08\x01"
SHAPE, CONTENT, DIM, SIZE = b"\x12", b"\x22", b"\x12", b"\x08"


def write_tensor(array: np.ndarray) -> bytes:
    """Serializes an array as float32."""
    return _head(array.shape) + np.ascontiguousarray(array, "<f4").tobytes()


def read_tensor(proto: bytes, shape: Sequence[int]) -> np.ndarray:
    """Reads a float32 tensor whose shape is known.

    Raises:
        ValueError: it is another tensor.
    """
    head = _head(shape)
    if len(proto) != len(head) + _num_bytes(shape) or not proto.startswith(head):
        raise ValueError(f"a serialized tensor of {len(proto)} bytes is no float32 {list(shape)}")
    return np.frombuffer(proto, "<f4", offset=len(head)).reshape(shape)


def _head(shape: Sequence[int]) -> bytes:
    """All that comes before the numbers."""
    dims = b"".join(DIM + _with_length(SIZE + _varint(length)) for length in shape)
    return DTYPE_FLOAT + SHAPE + _with_length(dims) + CONTENT + _varint(_num_bytes(shape))


def _num_bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)


def _with_length(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])

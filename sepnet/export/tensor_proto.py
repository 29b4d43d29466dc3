"""Float32 tensors as serialized `TensorProto`, as `tf.io.serialize_tensor` writes them, without TensorFlow."""

import math
from collections.abc import Sequence

import numpy as np

# Protobuf's types of fields: numbers, and what begins with its length.
NUMBER_FIELD, SIZED_FIELD = 0, 2
# DT_FLOAT of TensorFlow's `DataType`.
FLOAT32 = 1


def write_tensor(array: np.ndarray) -> bytes:
    """Serializes an array as float32."""
    return _head(array.shape) + np.ascontiguousarray(array, "<f4").tobytes()


def read_tensor(proto: bytes, shape: Sequence[int]) -> np.ndarray:
    """Reads a float32 tensor whose shape is known.

    Raises:
        ValueError: the bytes are another tensor, or none.
    """
    head = _head(shape)
    if len(proto) != len(head) + _num_bytes(shape) or not proto.startswith(head):
        raise ValueError(f"a serialized tensor of {len(proto)} bytes is no float32 {list(shape)}")
    return np.frombuffer(proto, "<f4", offset=len(head)).reshape(shape)


def sized_field(number: int, content: bytes) -> bytes:
    """A field of a message as protobuf writes it: a string, bytes or another message."""
    return _tag(number, SIZED_FIELD) + _varint(len(content)) + content


def _head(shape: Sequence[int]) -> bytes:
    """All that comes before the numbers: `dtype`, `tensor_shape`, and the length of `tensor_content`."""
    dims = b"".join(sized_field(2, _tag(1, NUMBER_FIELD) + _varint(length)) for length in shape)
    dtype = _tag(1, NUMBER_FIELD) + _varint(FLOAT32)
    return dtype + sized_field(2, dims) + _tag(4, SIZED_FIELD) + _varint(_num_bytes(shape))


def _num_bytes(shape: Sequence[int]) -> int:
    return 4 * math.prod(shape)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])

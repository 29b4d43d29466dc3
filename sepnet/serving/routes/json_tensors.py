"""TensorFlow Serving's JSON: `instances` or `inputs` to arrays, and arrays to `predictions` or `outputs`."""

import binascii
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pybase64

from sepnet.export.signatures import BYTES_SUFFIX, SERVING_DEFAULT
from sepnet.serving.engine.errors import BAD_REQUEST, ApiError

Arrays = dict[str, np.ndarray]


def parse_request(body: bytes, signatures: Mapping[str, Any]) -> tuple[str, Arrays, bool]:
    """Reads the body of a prediction: JSON with `instances` (rows) or `inputs` (columns), perhaps a `signature_name`.

    Args:
        body: what was sent.
        signatures: TensorFlow's functions by name.

    Returns:
        Name of the signature, arrays by name, and whether the request, hence its answer, is in rows.

    Raises:
        ApiError: the body is malformed, or does not fit the signature.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(BAD_REQUEST, f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise ApiError(BAD_REQUEST, f"JSON Value is a {type(document).__name__}; expected an object")
    signature = document.get("signature_name") or SERVING_DEFAULT
    if not isinstance(signature, str):
        raise ApiError(BAD_REQUEST, "'signature_name' must be a string")
    if signature not in signatures:
        raise ApiError(BAD_REQUEST, f'Serving signature name: "{signature}" not found in signature def')
    taken = signatures[signature].structured_input_signature[1]
    is_row = "instances" in document
    if is_row == ("inputs" in document):
        raise ApiError(BAD_REQUEST, "expected either 'instances' or 'inputs', and not both")
    values = _columns(document["instances"], taken) if is_row else _named(document["inputs"], taken)
    return signature, {name: _array(name, values[name], taken[name]) for name in taken}, is_row


def _columns(instances: Any, taken: Mapping[str, Any]) -> dict[str, list]:
    if not isinstance(instances, list) or not instances:
        raise ApiError(BAD_REQUEST, "'instances' must be a list that is not empty")
    columns: dict[str, list] = {name: [] for name in taken}
    for instance in instances:
        for name, value in _named(instance, taken).items():
            columns[name].append(value)
    return columns


def _named(value: Any, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by name; where there is only one, it may stand alone."""
    if isinstance(value, dict) and set(value) != {"b64"}:
        if set(value) != set(taken):
            raise ApiError(BAD_REQUEST, f"inputs are {_listed(value)}; expected {_listed(taken)}")
        return value
    if len(taken) != 1:
        raise ApiError(BAD_REQUEST, f"expected an object with {_listed(taken)}")
    return dict.fromkeys(taken, value)


def _listed(names) -> str:
    return ", ".join(sorted(map(repr, names))) or "none"


def _array(name: str, value: Any, specification) -> np.ndarray:
    array = _strings(name, value) if specification.dtype.name == "string" else _numbers(name, value)
    if array.dtype != object:
        with np.errstate(over="ignore"):
            array = array.astype(specification.dtype.as_numpy_dtype)
        if not np.isfinite(array).all():
            raise ApiError(BAD_REQUEST, f"{name} holds NaN, infinity or a number that is too large")
    expected = specification.shape.as_list()
    fits = len(expected) == array.ndim and all(
        length in (None, given) for length, given in zip(expected, array.shape, strict=True)
    )
    if not fits or not array.size:
        shape = ["any" if length is None else length for length in expected]
        raise ApiError(BAD_REQUEST, f"{name} has shape {list(array.shape)}; expected {shape}, and none of them 0")
    return array


def _numbers(name: str, value: Any) -> np.ndarray:
    level = [value]
    while (kinds := set(map(type, level))) == {list}:
        level = list(itertools.chain.from_iterable(level))
    # Not asked of NumPy: it would give every element as much room as the longest text takes.
    if not kinds <= {int, float, list}:
        raise ApiError(BAD_REQUEST, f"{name} holds something else than numbers")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ApiError(BAD_REQUEST, f"the lists of {name} differ in length or depth") from error


def _strings(name: str, value: Any) -> np.ndarray:
    """Strings, and objects `{"b64": ...}`; one level of lists, or none."""
    elements = value if isinstance(value, list) else [value]
    array = np.empty(len(elements), object)
    array[:] = [_string(name, element) for element in elements]
    return array if isinstance(value, list) else array.reshape(())


def _string(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        try:
            return pybase64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(BAD_REQUEST, f"Unable to base64 decode {name}: {error}") from error
    raise ApiError(BAD_REQUEST, f'{name} holds something else than strings and {{"b64": ...}} in one list')


def write_answer(outputs: Arrays, is_row: bool) -> list[bytes]:
    """Writes the body of an answer: `predictions`, a list of rows, or `outputs` by name.

    Returns:
        Its pieces in order; to join megabytes of them takes as long as to write them.
    """
    values: Any = {name: _values(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        (values,) = values.values()
    elif is_row:
        values = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return list(_pieces({"predictions" if is_row else "outputs": values}))


def _values(name: str, array: np.ndarray) -> Any:
    if array.dtype != object:
        return np.ascontiguousarray(array)
    return list(array) if name.endswith(BYTES_SUFFIX) else [value.decode() for value in array]


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield b"{"
        for index, (name, child) in enumerate(value.items()):
            yield (b"," if index else b"") + orjson.dumps(name) + b":"
            yield from _pieces(child)
        yield b"}"
    elif isinstance(value, list):
        yield b"["
        for index, child in enumerate(value):
            yield b"," if index else b""
            yield from _pieces(child)
        yield b"]"
    elif isinstance(value, bytes):
        # Base64 needs no escapes: megabytes of it are not searched for them.
        yield from (b'{"b64":"', pybase64.b64encode(value), b'"}')
    elif isinstance(value, np.ndarray) and not np.isfinite(value).all():
        # JSON has no NaN: TensorFlow Serving writes the word, as Python does, where orjson would write null.
        yield json.dumps(value.tolist()).encode()
    else:
        yield orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)

"""TensorFlow Serving's REST API, asked as its documentation says, against TensorFlow run without a server."""

import base64
import concurrent.futures
import http.client
import io
import json
import re
import tracemalloc

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from sepnet.export.contract import read_contract
from sepnet.serving.engine.errors import ApiError
from sepnet.serving.routes.json_tensors import parse_request
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, noise
from tests.sepnet.serving.conftest import b64

MODEL = "unet_1d"


@pytest.fixture(scope="module")
def mixture():
    return noise(2, 501, 2)


@pytest.fixture(scope="module")
def expected(signatures, mixture):
    """The stems of `mixture`."""
    return {name: stem.numpy() for name, stem in signatures["serving_default"](mixture=tf.constant(mixture)).items()}


@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
@pytest.mark.parametrize("named", [True, False])
def test_rows(server, mixture, expected, where, named):
    instances = [{"mixture": row.tolist()} if named else row.tolist() for row in mixture]
    answer = server.predict(f"{MODEL}{where}", {"signature_name": "serving_default", "instances": instances})
    assert answer.status_code == 200 and list(answer.json()) == ["predictions"]
    assert len(answer.json()["predictions"]) == len(mixture)
    for index, row in enumerate(answer.json()["predictions"]):
        for source in SOURCES:
            np.testing.assert_allclose(row[source], expected[source][index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("named", [True, False])
def test_columns(server, mixture, expected, named):
    answer = server.predict(MODEL, {"inputs": {"mixture": mixture.tolist()} if named else mixture.tolist()})
    assert answer.status_code == 200 and set(answer.json()["outputs"]) == set(SOURCES)
    for source in SOURCES:
        # The numbers are written so that no bit of a float32 is lost.
        np.testing.assert_allclose(answer.json()["outputs"][source], expected[source], rtol=0, atol=1e-6)


def test_wav_files(server, signatures):
    files = []
    for length, channels in ((300, 2), (1001, 1)):
        file = io.BytesIO()
        soundfile.write(file, noise(length, channels), SAMPLE_RATE, "PCM_16", format="WAV")
        files.append(file.getvalue())
    expected = signatures["wav"](wav_bytes=tf.constant(files))
    rows = server.predict(MODEL, {"signature_name": "wav", "instances": [{"wav_bytes": b64(file)} for file in files]})
    columns = server.predict(MODEL, {"signature_name": "wav", "inputs": {"wav_bytes": [b64(file) for file in files]}})
    for index in range(len(files)):
        for name, values in expected.items():
            row, column = rows.json()["predictions"][index][name], columns.json()["outputs"][name][index]
            assert row == column and set(row) == {"b64"}
            assert base64.b64decode(row["b64"]) == values[index].numpy()


def test_the_only_output_stands_alone(server, saved_models):
    contract = read_contract(saved_models / MODEL / "1")
    rows = server.predict(MODEL, {"signature_name": "contract", "instances": ["a", "b"]}).json()
    columns = server.predict(MODEL, {"signature_name": "contract", "inputs": ["a"]}).json()
    assert [json.loads(text) for text in rows["predictions"]] == [contract] * 2
    assert [json.loads(text) for text in columns["outputs"]] == [contract]


def test_tensorflow_servings_own_messages_read_status_and_metadata(server):
    """The answers are the JSON of TensorFlow Serving's protocol messages, with nothing that these do not know."""
    for where in ("", "/versions/1", "/labels/stable"):
        answer = server.get(f"/v1/models/{MODEL}{where}")
        (status,) = json_format.Parse(answer.text, get_model_status_pb2.GetModelStatusResponse()).model_version_status
        assert (status.version, status.state, status.status.error_code) == (1, status.AVAILABLE, 0)
        metadata = server.get(f"/v1/models/{MODEL}{where}/metadata").json()
        assert metadata["model_spec"] == {"name": MODEL, "signature_name": "", "version": "1"}
        described = json_format.ParseDict(
            metadata["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
        )
        (mixture,) = described.signature_def["serving_default"].inputs.values()
        assert [dim.size for dim in mixture.tensor_shape.dim] == [-1, -1, 2]
        assert set(described.signature_def["wav"].outputs) == {f"{source}_bytes" for source in SOURCES}


def test_tensors_as_lists_of_values_are_taken_too(server, mixture, expected):
    """TensorFlow for Java and Go writes them so."""
    proto = TensorProto(dtype=1, float_val=mixture[0].ravel())
    proto.tensor_shape.CopyFrom(tf.TensorShape(mixture[0].shape).as_proto())
    answer = server.predict(MODEL, {"signature_name": "tensor", "instances": [b64(proto.SerializeToString())]})
    for source in SOURCES:
        stem = base64.b64decode(answer.json()["predictions"][0][f"{source}_bytes"]["b64"])
        stem = tf.io.parse_tensor(stem, tf.float32).numpy()
        np.testing.assert_allclose(stem, expected[source][0], rtol=0, atol=1e-6)


def test_a_text_among_numbers_takes_no_memory(signatures):
    """NumPy would take 400 MB."""
    body = json.dumps({"instances": [["long" * 25_000, *["b"] * 1000]]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="else than numbers"):
            parse_request(body, signatures)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(body)
    finally:
        tracemalloc.stop()


def promising(*shape):
    """A tensor of one value, which TensorFlow takes for one of that shape."""
    proto = TensorProto(dtype=1, float_val=[0.5])
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return b64(proto.SerializeToString())


GOOD = [[[0.0, 0.0], [0.5, 0.5]]]
WRONG = {
    "no JSON": (b"{", 400, "JSON Parse error"),
    "NaN": (b'{"instances": [[[NaN, 0]]]}', 400, "JSON Parse error"),
    "no object": (b"[]", 400, "expected an object"),
    "deep": (b"[" * 100_000, 400, "JSON Parse error"),
    "neither": ({}, 400, "either 'instances' or 'inputs'"),
    "both": ({"instances": GOOD, "inputs": GOOD}, 400, "either 'instances' or 'inputs'"),
    "no list": ({"instances": 7}, 400, "must be a list"),
    "no rows": ({"instances": []}, 400, "not empty"),
    "signature": ({"signature_name": "none", "instances": GOOD}, 400, '"none" not found in signature def'),
    "no string": ({"signature_name": 7, "instances": GOOD}, 400, "must be a string"),
    "name": ({"instances": [{"song": GOOD[0]}]}, 400, "expected 'mixture'"),
    "rank": ({"instances": [[0.0, 0.5]]}, 400, "has shape"),
    "channels": ({"instances": [[[0.0, 0.5, 0.5]]]}, 400, r"expected \['any', 'any', 2\]"),
    "empty": ({"instances": [[]]}, 400, "has shape"),
    "ragged": ({"instances": [[[0.0, 0.5], [0.5]]]}, 400, "differ in length"),
    "words": ({"instances": [[["a", "b"]]]}, 400, "else than numbers"),
    "digits": ({"instances": [[["1", "2"]]]}, 400, "else than numbers"),
    "nothing": ({"instances": [[[None, 0.5]]]}, 400, "else than numbers"),
    "true": ({"instances": [[[True, False]]]}, 400, "else than numbers"),
    "objects": ({"instances": [[[{"a": 1}, 0.5]]]}, 400, "else than numbers"),
    "infinity": ({"instances": [[[1e39, 0.5]]]}, 400, "too large"),
    "base64": ({"signature_name": "wav", "instances": [{"b64": "***"}]}, 400, "base64 decode"),
    "base64 of numbers": ({"signature_name": "wav", "instances": [{"b64": 7}]}, 400, "else than strings"),
    "no WAV": ({"signature_name": "wav", "instances": ["text"]}, 400, "no WAV file"),
    "no tensor": ({"signature_name": "tensor", "instances": ["text"]}, 400, "TensorProto"),
    "no values": (
        {"signature_name": "tensor", "instances": [promising(30_000, 2)]},
        400,
        r"2 dimensions, \[30000, 2\] the first, and 2\d bytes; expected .* 4 bytes for each value",
    ),
    "rank of a tensor": ({"signature_name": "tensor", "instances": [promising(1, 1, 1)]}, 400, "has 3 dimensions"),
    "lists of strings": ({"signature_name": "wav", "instances": [["a"]]}, 400, "else than strings"),
    "one string": ({"signature_name": "wav", "inputs": "a"}, 400, "has shape"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_malformed_is_refused(server, case):
    body, status, message = WRONG[case]
    answer = server.post(
        f"/v1/models/{MODEL}:predict", data=body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert re.search(message, answer.json()["error"]), answer.json()


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models/none", 404, "Could not find any versions of model none"),
        ("GET", f"/v1/models/{MODEL}/versions/7", 404, f"Could not find version 7 of model {MODEL}"),
        ("GET", "/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        (
            "POST",
            f"/v1/models/{MODEL}/versions/7:predict",
            404,
            f"Servable not found for request: Specific({MODEL}, 7)",
        ),
        ("POST", f"/v1/models/{MODEL}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        ("GET", f"/v1/models/{MODEL}/labels/new", 400, "Unrecognized servable version label: new"),
        ("GET", f"/v1/models/{MODEL}/versions/x", 400, "Failed to convert version: x"),
        ("GET", f"/v1/models/{MODEL}/versions/{'9' * 99}", 400, "Failed to convert version"),
        ("POST", f"/v1/models/{MODEL}", 400, f"Malformed request: POST /v1/models/{MODEL}"),
        ("POST", f"/v1/models/{MODEL}:explain", 400, f"Malformed request: POST /v1/models/{MODEL}:explain"),
        ("GET", "/v1/models/..%2f..%2fetc/metadata", 400, "Malformed request"),
        ("GET", "/v1/models/%2e%2e", 404, "Could not find any versions of model .."),
        ("GET", "/static/..%2f..%2fapp.py", 404, "Not Found"),
        ("GET", "/static/%2e%2e/%2e%2e/app.py", 404, "Not Found"),
        ("GET", "/nothing", 404, "Not Found"),
        ("DELETE", "/models", 405, "Method Not Allowed"),
    ],
)
def test_what_is_not_there(server, method, path, status, message):
    body = b'{"instances": [[[0, 0]]]}' if method == "POST" else None
    # `requests` would tidy the path up.
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request(method, path, body)
    answer = connection.getresponse()
    assert answer.status == status
    assert message in json.loads(answer.read())["error"]
    connection.close()


def test_concurrent_requests_run_together_and_each_gets_its_own(server, signatures):
    """Eight at once: those of equal length share runs; the bad one among them fails alone."""
    lengths = [400, 400, 400, 700, 400, 700, 400, 400]
    songs = [noise(length, 2, seed=index) for index, length in enumerate(lengths)]
    protos = [tf.io.serialize_tensor(song).numpy() for song in songs]
    protos[2] = b"no tensor at all"

    def ask(proto):
        return server.predict(MODEL, {"signature_name": "tensor", "instances": [b64(proto)]})

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            answers = list(threads.map(ask, protos))
            assert [answer.status_code for answer in answers] == [200, 200, 400, 200, 200, 200, 200, 200]
            for index in (0, 3, 7):
                expected = signatures["serving_default"](mixture=tf.constant(songs[index][None]))
                for source in SOURCES:
                    stem = base64.b64decode(answers[index].json()["predictions"][0][f"{source}_bytes"]["b64"])
                    stem = tf.io.parse_tensor(stem, tf.float32).numpy()
                    np.testing.assert_allclose(stem, expected[source][0], rtol=0, atol=1e-5)
    metrics = {
        line.split()[0]: float(line.split()[1])
        for line in server.get("/metrics").text.splitlines()
        if line.startswith("sepnet_batch_requests")
    }
    assert metrics["sepnet_batch_requests_sum"] > metrics["sepnet_batch_requests_count"]

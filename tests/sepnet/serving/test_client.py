"""A song separated on a server, in blocks, gives what the model gives on this machine."""

import base64
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.client import RemoteModel
from sepnet.separate import main as separate
from sepnet.separator import Separator
from sepnet.serving.options import ServeOptions
from sepnet.tensor_proto import read_tensor, write_tensor
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, noise
from tests.sepnet.serving.conftest import running


@pytest.mark.parametrize("shape", [(1, 2), (300, 2), (70_000, 1), (2, 3, 4)])
def test_tensors_are_what_tensorflow_writes_and_reads(shape):
    array = noise(*shape)
    assert write_tensor(array) == tf.io.serialize_tensor(array).numpy()
    np.testing.assert_array_equal(read_tensor(tf.io.serialize_tensor(array).numpy(), shape), array)
    for other in (array.astype(np.float64), array[..., :-1], array.T if array.ndim > 2 else array[None]):
        with pytest.raises(ValueError, match="is no float32"):
            read_tensor(tf.io.serialize_tensor(other).numpy(), shape)


@pytest.mark.parametrize("family", ["unet_1d", "unet_1d_context", "unet_2d"])
def test_an_awkward_song_comes_back_as_if_separated_here(server, exported, family):
    """Three channels, another rate, an odd length, and longer than a block."""
    song = noise(25 * 11_025 + 13, 3)
    remote = Separator(RemoteModel(server.url, family))(song, 11_025)
    local = Separator(exported[family])(song, 11_025)
    assert list(remote) == list(SOURCES)
    for source in SOURCES:
        np.testing.assert_allclose(remote[source], local[source], rtol=0, atol=1e-6)


def test_no_message_grows_with_the_song(server, monkeypatch):
    model, sizes = RemoteModel(server.url, "unet_1d"), []
    send = model._send

    def measure(method, path, body, **options):
        status, headers, content = send(method, path, body, **options)
        sizes.append(max(len(body), len(content)))
        return status, headers, content

    monkeypatch.setattr(model, "_send", measure)
    largest = []
    for seconds in (25, 100):
        sizes.clear()
        for _ in Separator(model).separate_blocks([noise(seconds * SAMPLE_RATE, 2)], SAMPLE_RATE, 2):
            pass
        largest.append(max(sizes))
    assert largest[0] == largest[1]


class TensorFlowServing(http.server.BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving's documentation says, of a model that halves; it knows none of sepnet's own routes.

    Before every answer it says 503 once, and once it breaks the connection.
    """

    protocol_version = "HTTP/1.1"
    contract = {"sources": ["half"], "sample_rate": 8000, "num_channels": 2, "grid_samples": 1, "context_samples": 0}
    troubles = iter(())

    def do_GET(self):
        statuses = [
            {"version": "3", "state": "LOADING", "status": {}},
            {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        ]
        if self.path == "/prefix/v1/models/a%20model":
            self._answer(200, {"model_version_status": statuses})
        else:
            self._answer(404, {"error": "Could not find any versions"})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        trouble = next(self.troubles, None)
        if trouble == "break":
            self.close_connection = True
        elif trouble == "busy":
            self._answer(503, {"error": "busy"}, {"Retry-After": "0"})
        elif self.path != "/prefix/v1/models/a%20model/versions/2:predict":
            self._answer(404, {"error": "Servable not found for request"})
        elif request["signature_name"] == "contract":
            self._answer(200, {"outputs": [json.dumps(self.contract)]})
        else:
            (row,) = request["inputs"]["mixture_bytes"]
            mixture = tf.io.parse_tensor(base64.b64decode(row["b64"]), tf.float32)
            # A model of one source has one output, which stands alone.
            half = base64.b64encode(tf.io.serialize_tensor(mixture / 2).numpy()).decode()
            self._answer(200, {"outputs": [{"b64": half}]})

    def _answer(self, status, document, headers=()):
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def tensorflow_serving():
    """The address of a server that speaks TensorFlow Serving's protocol, written from its documentation."""
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TensorFlowServing)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}/prefix"
    found.shutdown()
    found.server_close()
    thread.join()


def test_any_server_of_the_protocol_will_do_though_it_be_busy_or_break_off(tensorflow_serving, monkeypatch):
    monkeypatch.setattr(TensorFlowServing, "troubles", iter(["busy", None, "break", "busy", None, None, "break"]))
    song = noise(25 * 8000, 2)
    stems = Separator(RemoteModel(tensorflow_serving, "a model"))(song, 8000)
    np.testing.assert_array_equal(stems["half"], song / 2)


def test_the_only_model_need_not_be_named(server, gain_model):
    folder = gain_model({"vocals": 0.5, "rest": 0.5}, sample_rate=8000)
    with running(ServeOptions(saved_models=folder.parent, token="s3cret")) as other:
        with pytest.raises(UserError, match="answered 401"):
            RemoteModel(other.url)
        assert RemoteModel(other.url, token="s3cret").name == "gains"
    with pytest.raises(UserError, match="has these models: unet_1d, unet_1d_context, unet_2d; name one by --model"):
        RemoteModel(server.url)


def test_a_model_of_an_older_export_is_told_of(exported, tmp_path):
    """It is served as far as it goes: its stems, but not to a client that has to know its contract."""
    model = tf.saved_model.load(str(exported["unet_1d"] / "1"))
    version = tmp_path / "older" / "1"
    tf.saved_model.save(model, str(version), {"serving_default": model.signatures["serving_default"]})
    shutil.copytree(exported["unet_1d"] / "1" / "assets.extra", version / "assets.extra")
    with running(ServeOptions(saved_models=tmp_path)) as other:
        assert other.predict("older", {"instances": [[[0.5, 0.5]]]}).status_code == 200
        with pytest.raises(UserError, match='"contract" not found in signature def.*has to be exported again'):
            RemoteModel(other.url)


def test_what_users_get_wrong_is_told_in_one_line(server, tensorflow_serving):
    for url, name, message in (
        ("localhost:8501", None, "is no address of a server"),
        ("http://127.0.0.1:9", "demo", "cannot reach http://127.0.0.1:9: .*; is the server running"),
        (server.url, "none", "answered 404: Could not find any versions of model none"),
        (tensorflow_serving, None, "name the model by --model if this is a TensorFlow Serving"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            RemoteModel(url, name)
        assert "\n" not in str(raised.value)


def test_the_command_separates_by_a_server_as_by_itself(server, exported, tmp_path):
    soundfile.write(tmp_path / "song.wav", noise(3 * SAMPLE_RATE + 1, 2), SAMPLE_RATE, "FLOAT")
    flags = {"here": ["--model", str(exported["unet_2d"])], "there": ["--server", server.url, "--model", "unet_2d"]}
    for place, options in flags.items():
        separate([str(tmp_path / "song.wav"), "-o", str(tmp_path / place), *options])
    for source in SOURCES:
        here, there = (soundfile.read(tmp_path / place / f"{source}.wav")[0] for place in flags)
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--server", "http://127.0.0.1:9"], "is the server running"),
        (["--server", "{url}", "--model", "nowhere"], "nowhere"),
        (["--server", "{url}"], "name one by --model"),
        (["--token", "secret"], "--token is for a server"),
    ],
)
def test_servers_that_cannot_help_are_named(server, tmp_path, flags, message):
    soundfile.write(tmp_path / "song.wav", noise(100, 2), SAMPLE_RATE)
    flags = [flag.replace("{url}", server.url) for flag in flags]
    with pytest.raises(UserError, match=message) as caught:
        separate([str(tmp_path / "song.wav"), "-o", str(tmp_path / "out"), *flags])
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()

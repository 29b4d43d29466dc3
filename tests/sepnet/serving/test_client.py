"""A song separated on a server, in blocks, gives what the model gives on this machine."""

import base64
import contextlib
import gzip
import http.server
import json
import shutil
import socket
import threading

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.export.contract import CONTRACT_FILE
from sepnet.export.tensor_proto import read_tensor, write_tensor
from sepnet.separate import main as separate
from sepnet.separation import remote_model as client
from sepnet.separation.remote_model import TOKEN_VARIABLE, RemoteModel, bearer_token
from sepnet.separation.separator import Separator
from sepnet.serving.engine.options import ServeOptions
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


@pytest.mark.parametrize("family", ["unet_1d", pytest.param("unet_1d_context", marks=pytest.mark.slow), "unet_2d"])
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


@contextlib.contextmanager
def answering(handler):
    """The address of a server whose requests a handler answers."""
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{found.server_port}/prefix"
    finally:
        found.shutdown()
        found.server_close()
        thread.join()


@pytest.fixture
def tensorflow_serving():
    """The address of a server that speaks TensorFlow Serving's protocol, written from its documentation."""
    with answering(TensorFlowServing) as url:
        yield url


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
    with pytest.raises(
        UserError,
        match="has these models: unet_1d, unet_1d_context, unet_2d, unet_2d_complex, unet_hybrid; name one by --model",
    ):
        RemoteModel(server.url)


def test_a_model_of_an_older_export_is_told_of(exported, tmp_path):
    """It is served as far as it goes: its stems, but not to a client that has to know its contract."""
    model = tf.saved_model.load(str(exported["unet_1d"] / "1"))
    version = tmp_path / "older" / "1"
    tf.saved_model.save(model, str(version), {"serving_default": model.signatures["serving_default"]})
    (version / "assets.extra").mkdir()
    shutil.copy(exported["unet_1d"] / "1" / CONTRACT_FILE, version / CONTRACT_FILE)
    with running(ServeOptions(saved_models=tmp_path)) as other:
        assert other.predict("older", {"instances": [[[0.5, 0.5]]]}).status_code == 200
        with pytest.raises(UserError, match='"contract" not found in signature def.*has to be exported again'):
            RemoteModel(other.url)


def test_what_users_get_wrong_is_told_in_one_line(server, tensorflow_serving):
    for url, name, message in (
        ("http://127.0.0.1:9", "demo", "cannot reach http://127.0.0.1:9: .*; is the server running"),
        (server.url, "none", "answered 404: Could not find any versions of model none"),
        (server.url, "\ud800 caf\udce9", "answered 404: Could not find any versions of model"),
        (server.url, "", "the model's name is empty"),
        (tensorflow_serving, None, "name the model by --model if this is a TensorFlow Serving"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            RemoteModel(url, name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "localhost",
        "localhost:8501",
        "//localhost:8501",
        "http:",
        "http://",
        "http:///models",
        "http:localhost",
        "http://h:99999",
        "http://h:-1",
        "http://h:eight",
        "http://h:8501:8501",
        "http://[::1",
        "http://::1]",
        "http://[nowhere]:8501",
        "http:// h",
        "http://h ",
        "http://h\n",
        "http://h/a b",
        "http://\u00fc\u00fc.example",
        "http://a..b",
        f"http://{'a' * 64}",
        "ftp://h",
        "file:///etc/passwd",
        "ws://h",
        "http://user@h",
        "http://user:secret@h:8501",
        "http://h?x=1",
        "http://h/#part",
        "http://h\0",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_asked(url, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(
        UserError, match="is no address of a server .*; expected one like http://localhost:8501"
    ) as told:
        RemoteModel(url, "demo")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "asked"),
    [("http://[::1]", ("::1", 80)), ("https://[fe80::abcd]", ("fe80::abcd", 443)), ("http://[::1]:85", ("::1", 85))],
)
def test_ipv6_addresses_keep_their_colons(url, asked, monkeypatch):
    asked_for = []

    def refuse(address, *_, **__):
        asked_for.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(UserError):
        RemoteModel(url, "demo")
    assert set(asked_for) == {asked}


@pytest.mark.parametrize("path", ["", "/", "/prefix", "/prefix/"])
def test_an_address_may_end_with_a_path_and_a_slash(server, path):
    with pytest.raises(UserError) if "prefix" in path else contextlib.nullcontext():
        assert RemoteModel(server.url.upper().replace("HTTP", "hTTp") + path, "unet_1d").name == "unet_1d"


def test_tokens(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert bearer_token() is None and bearer_token("s3cret") == "s3cret"
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert bearer_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, "else")
    assert bearer_token() == "else" and bearer_token("s3cret") == "s3cret"
    for token in ("", " ", "two words", "t\u00fcr", "line\nfeed", "\udce9"):
        with pytest.raises(UserError, match="the token (is empty|holds something else)") as told:
            RemoteModel("http://127.0.0.1:9", "demo", token=token)
        assert "\n" not in str(told.value) and (not token.strip() or token not in str(told.value))
    monkeypatch.setenv(TOKEN_VARIABLE, "t\u00fcr")
    with pytest.raises(UserError, match="SEPNET_TOKEN holds something else"):
        RemoteModel("http://127.0.0.1:9", "demo")


class Strange(TensorFlowServing):
    """Answers predictions of stems, or all, with bytes that the test chooses."""

    answer = b""
    is_always = False

    def do_GET(self):
        self._say() if self.is_always else super().do_GET()

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.peek(length)[:length]
        if self.is_always or b'"tensor"' in body:
            self.rfile.read(length)
            self._say()
        else:
            super().do_POST()

    def _say(self):
        self.close_connection = True
        self.wfile.write(self.answer)


def answered(status, body, *lines):
    """An answer as it stands on the wire."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def stem(array, **more):
    """The answer of a server that knows the source `half`."""
    data = base64.b64encode(tf.io.serialize_tensor(array).numpy()).decode()
    return answered("200 OK", json.dumps({"outputs": [{"b64": data}], **more}).encode())


HTML = b"<html>\n<body>Bad Gateway</body>\n</html>"
NO_JSON = "with something else than JSON; is this the address"
NO_MODEL = "answered something else than a server of models does"
STRANGE = {
    "html": (answered("200 OK", HTML), NO_JSON),
    "nothing": (answered("200 OK", b""), NO_JSON),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204 No Content"),
    "half of json": (answered("200 OK", b'{"outputs": ['), NO_JSON),
    "bytes": (answered("200 OK", bytes(range(256))), NO_JSON),
    "deep": (answered("200 OK", b"[" * 100_000), NO_JSON),
    "bad gateway": (answered("502 Bad Gateway", HTML), f"answered 502 Bad Gateway {NO_JSON}"),
    "timeout": (answered("504 Gateway Time-out", HTML), f"answered 504 Gateway Timeout {NO_JSON}"),
    "unknown status": (answered("599 x", HTML), f"answered 599 {NO_JSON}"),
    "redirect": (answered("302 Found", b"", "Location: https://else.example/"), "redirected to https://else.example/"),
    "redirect nowhere": (answered("308 x", b""), "redirected to elsewhere"),
    "error in lines": (answered("400 x", b'{"error": "one\\ntwo"}'), r"answered 400: one\\ntwo"),
    "error as a list": (answered("400 x", b'["one"]'), "answered 400: "),
    "list": (answered("200 OK", b"[]"), NO_MODEL),
    "null": (answered("200 OK", b"null"), NO_MODEL),
    "number": (answered("200 OK", b"7"), NO_MODEL),
    "no outputs": (answered("200 OK", b'{"predictions": []}'), NO_MODEL),
    "empty outputs": (answered("200 OK", b'{"outputs": []}'), NO_MODEL),
    "other outputs": (answered("200 OK", b'{"outputs": {"a": [{"b64": ""}], "b": [{"b64": ""}]}}'), NO_MODEL),
    "numbers": (answered("200 OK", b'{"outputs": [[0.5, 0.5]]}'), NO_MODEL),
    "no base64": (answered("200 OK", b'{"outputs": [{"b64": "*"}]}'), NO_MODEL),
    "no tensor": (answered("200 OK", b'{"outputs": [{"b64": "eHh4"}]}'), "is no float32"),
    "other shape": (stem(np.zeros((1, 2), "f")), "is no float32"),
    "other type": (stem(np.zeros((100, 2))), "is no float32"),
    "no gzip": (answered("200 OK", b"{}", "Content-Encoding: gzip"), NO_JSON),
    "half of gzip": (answered("200 OK", gzip.compress(b"{}")[:-3], "Content-Encoding: gzip"), NO_JSON),
}


@pytest.fixture(params=[False, True], ids=["of a block", "of all"])
def strange(request):
    """The address of a server that answers strangely."""
    handler = type("Handler", (Strange,), {"is_always": request.param})
    with answering(handler) as url:
        yield url, handler


@pytest.mark.parametrize("case", STRANGE)
def test_an_answer_that_cannot_be_understood_is_one_line(strange, case):
    url, handler = strange
    handler.answer, message = STRANGE[case]
    # What would be stems is no list of versions either.
    message = NO_MODEL if handler.is_always and message == "is no float32" else message
    with pytest.raises(UserError, match=message) as told:
        Separator(RemoteModel(url, "a model"))(noise(100, 2), 8000)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


@pytest.mark.parametrize("answer", [b"", answered("200 OK", b"{}")[:-1], b"no HTTP at all\r\n\r\n"])
def test_a_server_that_always_breaks_off_is_one_line(strange, answer, monkeypatch):
    url, handler = strange
    handler.answer = answer
    monkeypatch.setattr(client.time, "sleep", lambda _: None)
    with pytest.raises(UserError, match=f"cannot reach {url}: .+; is the server running") as told:
        Separator(RemoteModel(url, "a model"))(noise(100, 2), 8000)
    assert "\n" not in str(told.value)


def test_an_answer_that_a_proxy_has_packed_unasked_is_read():
    packed = stem(noise(100, 2)).partition(b"\r\n\r\n")[2]
    answer = answered("200 OK", gzip.compress(packed), "Content-Encoding: gzip")
    with answering(type("Handler", (Strange,), {"answer": answer})) as url:
        stems = Separator(RemoteModel(url, "a model"))(noise(100, 2), 8000)
    np.testing.assert_array_equal(stems["half"], noise(100, 2))


@pytest.mark.parametrize(
    "contract",
    [{}, [], None, {"sources": []}, TensorFlowServing.contract | {"sample_rate": 1e9}, float("nan")],
    ids=str,
)
def test_a_contract_from_a_server_is_checked_as_one_from_a_file_is(contract):
    handler = type("Handler", (TensorFlowServing,), {"contract": contract})
    with answering(handler) as url, pytest.raises(UserError, match=f"a model on {url} is damaged: ") as told:
        RemoteModel(url, "a model")
    assert "\n" not in str(told.value)


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

"""Servers inside the tests' own process: TensorFlow is loaded already."""

import base64
import contextlib
import dataclasses
import faulthandler
import socket
import threading
import time

import pytest
import requests
import tensorflow as tf

from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.server import make_server


@dataclasses.dataclass
class Running:
    """A server that runs in a thread.

    Attributes:
        url: its address.
        port: its port.
        server: the server itself.
        service: what it serves.
    """

    url: str
    port: int
    server: object
    service: object

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=600, **options)

    def post(self, path, **options):
        return requests.post(self.url + path, timeout=600, **options)

    def predict(self, model, request, **options):
        return self.post(f"/v1/models/{model}:predict", json=request, **options)


@contextlib.contextmanager
def running(options):
    """Runs a server until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port = listener.getsockname()[1]
    ready = threading.Event()
    server, service = make_server(options, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(60)
        yield Running(f"http://127.0.0.1:{port}", port, server, service)
    finally:
        server.drain()
        thread.join(30)
        if thread.is_alive():
            faulthandler.dump_traceback()
            pytest.fail("the server does not end; where each thread is stands in what was captured of stderr")


@pytest.fixture(scope="session")
def saved_models(exported):
    """The folder of the exported models of all families."""
    return exported["unet_1d"].parent


@pytest.fixture(scope="session")
def server(saved_models):
    """A server of these models, with limits that a test can reach."""
    options = ServeOptions(
        saved_models=saved_models,
        labels={("unet_1d", "stable"): 1},
        max_predict_bytes=1 << 20,
        max_song_bytes=4 << 20,
        max_song_seconds=60,
        stall_seconds=2.0,
        poll_seconds=60,
    )
    with running(options) as found:
        yield found


@pytest.fixture(scope="session")
def signatures(exported):
    """The signatures of the 1-D model, run by TensorFlow alone."""
    loaded = tf.saved_model.load(str(exported["unet_1d"] / "1"))
    yield loaded.signatures


def b64(data):
    """Bytes as TensorFlow Serving's JSON has them."""
    return {"b64": base64.b64encode(data).decode()}


def eventually(condition, seconds=60):
    """Waits until something that the server does by itself has come about."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)

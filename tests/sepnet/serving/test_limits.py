"""Clients that send too much, too slowly, too many, or are not allowed to; and the server's end."""

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import re
import resource
import socket
import threading
import time
import types

import pytest
import requests

from sepnet.serving.engine import runner
from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.server import raise_limit_of_files
from tests.sepnet.helpers import SAMPLE_RATE, noise
from tests.sepnet.serving.conftest import b64, eventually, running
from tests.sepnet.serving.test_separate_route import encoded

PREDICT = "/v1/models/unet_1d:predict"
GOOD = json.dumps({"instances": [[[0.25, -0.25]] * 100]}).encode()


def sent(server, *parts, pause_seconds=0.0):
    """Sends bytes as they are, and returns status and body of what comes back before the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for part in parts:
            # A server that closes the connection has said all that it will.
            with contextlib.suppress(ConnectionError):
                connection.sendall(part)
            time.sleep(pause_seconds)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
                if re.search(rb'\r\n\r\n\{"error".*\}$', received):
                    break
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else None, body


def head(path, *lines):
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


@pytest.mark.parametrize("path", [PREDICT, "/separate"])
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(server, path):
    """Only the head is sent."""
    status, body = sent(server, head(path, "Content-Length: 99999999999"))
    assert status == 413 and "expected at most" in json.loads(body)["error"]


@pytest.mark.parametrize(("path", "limit"), [(PREDICT, 1 << 20), ("/separate", 4 << 20)])
def test_a_body_that_does_not_say_how_large_it_is_is_stopped_at_the_limit(server, path, limit):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    status, body = sent(server, head(path, "Transfer-Encoding: chunked"), *[chunk] * (limit // 65536 + 2))
    assert status == 413 and json.loads(body)["error"] == f"the body has more than {limit} bytes"


@pytest.mark.parametrize("path", [PREDICT, "/separate"])
def test_a_body_that_does_not_come_is_given_up(server, path):
    status, body = sent(server, head(path, "Content-Length: 1000"), b"only this")
    assert status == 408 and "too slowly: 9 bytes" in json.loads(body)["error"]


def test_a_body_that_drips_is_given_up(server):
    parts = [b"x"] * 20
    status, _ = sent(server, head(PREDICT, "Content-Length: 1000"), *parts, pause_seconds=0.15)
    assert status == 408


def test_a_client_that_goes_away_while_it_sends_takes_no_place(server):
    for _ in range(12):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head("/separate", "Content-Length: 100000") + b"x" * 1000)
    song = encoded(noise(100, 1))
    eventually(lambda: server.post("/separate?model=unet_1d&stem=vocals", data=song).status_code == 200)
    eventually(lambda: "sepnet_songs_inside 0.0" in server.get("/metrics").text)


def test_a_song_that_breaks_off_while_it_is_sent_is_gone_and_may_come_again(server):
    song, path = encoded(noise(100, 1)), "/separate?model=unet_1d&stem=vocals&job=breaks-off"

    def state():
        return server.get("/separate/jobs/breaks-off").json().get("state")

    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(path, f"Content-Length: {len(song)}") + song[:100])
        eventually(lambda: state() == "waiting")
    eventually(lambda: state() == "gone")
    assert server.post(path, data=song).status_code == 200
    eventually(lambda: state() == "done")


def test_a_client_that_does_not_take_its_stems_is_cut_off(server):
    song = encoded(noise(58 * SAMPLE_RATE, 2), SAMPLE_RATE)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(head("/separate?model=unet_1d&encoding=FLOAT", f"Content-Length: {len(song)}") + song)
        eventually(lambda: server.service.gate.inside == 1)
        eventually(lambda: server.service.gate.inside == 0)


@pytest.mark.parametrize("lengths", [(245_000,), (125_000, 120_000)])
def test_predictions_longer_than_may_run_at_once_are_refused(server, lengths):
    """30 s at 8000 Hz, all of a batch together."""
    files = [b64(encoded(noise(length, 1), SAMPLE_RATE)) for length in lengths]
    answer = server.predict("unet_1d", {"signature_name": "wav", "instances": files})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("245000 samples in one request, ")


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"instances": [[[0.5, 0.5]]] * 1000}, " samples in one request, of "),
        ({"signature_name": "contract", "instances": [""] * 1000}, " samples in one request, of "),
        ({"signature_name": "wav", "instances": [b64(encoded(noise(1, 1), SAMPLE_RATE))] * 1000}, " samples in one"),
        ({"instances": [[]] * 240_000 * 2}, "over 480000 lists in one request"),
    ],
    ids=["short rows", "rows of nothing", "short files", "lists"],
)
def test_many_rows_take_no_more_than_a_few(options, request_body, said):
    with running(dataclasses.replace(options, max_predict_bytes=1 << 22)) as server:
        answer = server.predict("unet_1d", request_body)
        assert answer.status_code == 413 and said in answer.json()["error"]


def test_where_the_limit_of_files_is_said_to_be_none_macos_takes_a_number(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    raise_limit_of_files()
    assert asked == [(10_240, resource.RLIM_INFINITY)]


def test_a_thousand_silent_connections_stop_nobody(server):
    # Both ends of each are in this process.
    raise_limit_of_files()
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(1000)
        ]
        silent[0].sendall(b"POST / HTTP/1.1\r\nHost:")
        begin = time.monotonic()
        assert server.post(PREDICT, data=GOOD).status_code == 200
        assert time.monotonic() - begin < 5
        # And they do not stay: the server ends them.
        for connection in silent:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""


@pytest.fixture
def held(monkeypatch):
    """Runs of models wait until this event is set."""
    may_go_on = threading.Event()
    unchanged = runner.run_signature

    def run_signature(*arguments):
        assert may_go_on.wait(30)
        return unchanged(*arguments)

    monkeypatch.setattr(runner, "run_signature", run_signature)
    yield may_go_on
    may_go_on.set()


@contextlib.contextmanager
def crowded(options, **limits):
    """A server with other limits, and threads for eight clients."""
    with (
        running(dataclasses.replace(options, **limits)) as server,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        yield server, threads


@pytest.fixture
def options(saved_models, tmp_path):
    """Options of a server of one model."""
    (tmp_path / "saved_models").mkdir()
    (tmp_path / "saved_models" / "unet_1d").symlink_to(saved_models / "unet_1d")
    return ServeOptions(saved_models=tmp_path / "saved_models")


def test_what_is_too_much_gets_503_and_the_rest_is_answered(options, held):
    with crowded(options, max_requests=3) as (server, threads):
        answers = [threads.submit(server.post, PREDICT, data=GOOD) for _ in range(8)]
        eventually(lambda: sum(answer.done() for answer in answers) == 5)
        held.set()
        answers = [answer.result() for answer in answers]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 5
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1 and "inside already" in answer.json()["error"]


def test_a_run_that_fails_in_an_unknown_way_is_one_answer_and_no_end(server, monkeypatch):
    """The thread that runs models survives it, and so does whoever ran in the same batch or comes next."""
    unchanged = runner.run_signature

    def run_signature(version, signature, inputs):
        if (inputs["mixture"] == 0.5).any():
            raise MemoryError
        return unchanged(version, signature, inputs)

    monkeypatch.setattr(runner, "run_signature", run_signature)
    bad = GOOD.replace(b"0.25", b"0.5")
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda data: server.post(PREDICT, data=data), [GOOD, bad] * 8))
    assert [answer.status_code for answer in answers] == [200, 500] * 8
    assert answers[1].json() == {"error": "the server failed; its log says more"}


def test_bodies_that_are_held_have_a_limit_together(options, held):
    large = GOOD + b" " * 100_000
    with crowded(options, max_held_bytes=250_000) as (server, threads):
        answers = [threads.submit(server.post, PREDICT, data=large) for _ in range(4)]
        eventually(lambda: sum(answer.done() for answer in answers) == 2)
        held.set()
        assert sorted(answer.result().status_code for answer in answers) == [200, 200, 503, 503]
        # What was held is given back.
        assert server.post(PREDICT, data=large).status_code == 200


def test_songs_beyond_the_limit_get_503(options, held):
    song = encoded(noise(100, 1))
    with crowded(options, max_songs=2) as (server, threads):
        answers = [threads.submit(server.post, "/separate", data=song) for _ in range(3)]
        eventually(lambda: sum(answer.done() for answer in answers) == 1)
        held.set()
        assert sorted(answer.result().status_code for answer in answers) == [200, 200, 503]


def test_a_song_whose_client_leaves_while_it_waits_is_forgotten(options, held):
    song = encoded(noise(100, 1))
    with (
        running(dataclasses.replace(options, songs_at_once=1)) as server,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(server.post, "/separate?job=the-first", data=song)
        eventually(lambda: server.get("/separate/jobs/the-first").json().get("state") == "separating")
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head("/separate?job=the-second", f"Content-Length: {len(song)}") + song)
            eventually(lambda: server.get("/separate/jobs/the-second").status_code == 200)
        eventually(lambda: server.get("/separate/jobs/the-second").json()["state"] == "gone")
        held.set()
        assert first.result().status_code == 200


def test_a_token_opens_all_but_health_and_page(options):
    with running(dataclasses.replace(options, token="s3cret")) as server:
        for path in ("/models", "/metrics", "/openapi.json", "/v1/models/unet_1d", "/demo-song"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                answer = server.get(path, headers=headers)
                assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert server.post(PREDICT, data=GOOD).status_code == 401
        assert {server.get(path).status_code for path in ("/healthz", "/readyz", "/")} == {200}
        allowed = {"Authorization": "Bearer s3cret"}
        assert server.get("/models", headers=allowed).status_code == 200
        assert server.post(PREDICT, data=GOOD, headers=allowed).status_code == 200


def test_pages_of_other_hosts_are_not_answered(server):
    """Else any page of the internet could let its visitors' browsers work here."""
    assert server.post(PREDICT, data=GOOD, headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert server.post(PREDICT, data=GOOD, headers={"Origin": server.url}).status_code == 200
    for origin in ("null", "http://[", "http://", f"{server.url}.example", server.url.partition("//")[2], "\u00fc"):
        answer = server.post(PREDICT, data=GOOD, headers={"Origin": origin.encode()})
        assert answer.status_code == 403 and "a proxy has to hand on the Host" in answer.json()["error"]


def test_behind_a_proxy_the_page_needs_the_host_that_its_visitors_ask_for(server):
    """Proxies send some headers by themselves, docs/serving.md asks for one; a client can send any other, too."""
    page = {"Origin": "https://music.example"}
    forwarded = {"X-Forwarded-Host": "music.example", "X-Forwarded-Proto": "https"}
    assert server.post(PREDICT, data=GOOD, headers=page | {"Host": "backend:8501"} | forwarded).status_code == 403
    assert server.post(PREDICT, data=GOOD, headers=page | {"Host": "music.example"}).status_code == 200


def test_on_its_end_running_requests_finish_and_new_ones_get_503(options, held):
    with running(options) as server, concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(server.post, PREDICT, data=GOOD)
        song = threads.submit(server.post, "/separate?stem=vocals", data=encoded(noise(100, 1)))
        eventually(lambda: server.service.gate._requests == {"predict": 1, "separate": 1})
        server.server.drain()
        late = server.post(PREDICT, data=GOOD)
        assert late.status_code == 503 and late.headers["Retry-After"] == "5"
        assert server.get("/readyz").status_code == 503 and server.get("/healthz").status_code == 200
        held.set()
        assert first.result().status_code == 200
        assert song.result().status_code == 200 and len(song.result().content) == 44 + 200
        eventually(lambda: not _answers(server))


def test_a_server_whose_supervisor_died_while_it_started_ends(options, monkeypatch):
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: types.SimpleNamespace(pid=os.getppid() + 1))
    with running(options) as server:
        eventually(lambda: not _answers(server))


def _answers(server):
    try:
        return requests.get(server.url + "/healthz", timeout=5).status_code
    except requests.ConnectionError:
        return None

"""Bodies that are packed by gzip, on the way in and on the way out."""

import gzip
import http.client
import json
import random
import tracemalloc
import zlib

import pytest
import requests

from sepnet.serving.engine.errors import ApiError
from sepnet.serving.routes.encodings import Gunzip
from tests.sepnet.helpers import noise
from tests.sepnet.serving.test_limits import GOOD, PREDICT, head, sent
from tests.sepnet.serving.test_separate_route import encoded

MIB = 1 << 20
PACKED = {"Content-Encoding": "gzip"}
SONG = "/separate?model=unet_1d&stem=vocals"


def test_a_packed_prediction_is_answered_like_the_same_unpacked(server):
    plain = server.post(PREDICT, data=GOOD).json()
    for body in (
        gzip.compress(GOOD),
        gzip.compress(GOOD, 0),
        # Joined files are one file, and there may be zeros behind, as on tapes.
        gzip.compress(GOOD[:10]) + gzip.compress(b"") + gzip.compress(GOOD[10:]) + bytes(600),
    ):
        assert server.post(PREDICT, data=body, headers=PACKED).json() == plain
        assert server.post(PREDICT, data=body, headers={"Content-Encoding": "X-GZIP, identity"}).json() == plain
        # Without a length, in chunks of any size.
        chunks = (body[start : start + 7] for start in range(0, len(body), 7))
        assert server.post(PREDICT, data=chunks, headers=PACKED).json() == plain


def test_a_packed_song_gives_the_stems_of_the_song(server):
    song = encoded(noise(1 << 20, 1), 44_100)
    assert len(song) > 2 * MIB
    plain = server.post(SONG, data=song)
    packed = server.post(SONG, data=gzip.compress(song, 1), headers=PACKED)
    assert plain.status_code == packed.status_code == 200
    assert plain.content == packed.content


DAMAGED = bytearray(gzip.compress(GOOD))
DAMAGED[-6] ^= 1


@pytest.mark.parametrize("path", [PREDICT, SONG])
@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (GOOD, "gzip", 400, "cannot be unpacked by gzip"),
        (b"", "gzip", 400, "breaks off before the end of its gzip"),
        (gzip.compress(GOOD)[:-1], "gzip", 400, "breaks off before the end of its gzip"),
        (gzip.compress(GOOD)[:30], "gzip", 400, "breaks off before the end of its gzip"),
        (bytes(DAMAGED), "gzip", 400, "cannot be unpacked by gzip"),
        (gzip.compress(GOOD) + b"junk behind", "gzip", 400, "cannot be unpacked by gzip"),
        (gzip.compress(GOOD) + gzip.compress(GOOD)[:-3], "gzip", 400, "breaks off before the end of its gzip"),
        (zlib.compress(GOOD), "deflate", 415, "Content-Encoding is deflate; expected gzip, or none"),
        (GOOD, "br", 415, "Content-Encoding is br"),
        (gzip.compress(gzip.compress(GOOD)), "gzip, gzip", 415, "Content-Encoding is gzip, gzip"),
    ],
    # Names without the time of packing, so that all processes of a run know the tests by the same names.
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_what_is_packed_badly_or_in_another_way_is_refused(server, path, body, encoding, status, message):
    answer = server.post(path, data=body, headers={"Content-Encoding": encoding})
    assert answer.status_code == status and message in answer.json()["error"], answer.text
    assert (answer.headers.get("Accept-Encoding") == "gzip") == (status == 415)


@pytest.mark.parametrize(("path", "limit"), [(PREDICT, MIB), (SONG, 4 * MIB)])
def test_what_unpacks_to_too_much_is_stopped(server, path, limit):
    """1 MiB that stands for 1 GiB."""
    bomb = gzip.compress(bytes(64 * MIB), 9) * 16
    answer = server.post(path, data=bomb, headers=PACKED)
    assert answer.status_code == 413
    assert answer.json()["error"] == f"the body has more than {limit} bytes, unpacked"
    # Nor do those that come after it find anything taken.
    assert server.post(PREDICT, data=gzip.compress(GOOD), headers=PACKED).status_code == 200


@pytest.mark.parametrize("path", [PREDICT, "/separate"])
def test_a_packed_body_that_says_it_is_too_large_is_refused_before_it_is_read(server, path):
    status, body = sent(server, head(path, "Content-Length: 99999999999", "Content-Encoding: gzip"))
    assert status == 413 and "expected at most" in json.loads(body)["error"]


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("step", [1, 1000, MIB])
def test_unpacking_gives_the_same_whatever_the_pieces(level, step):
    generator = random.Random(0)
    data = generator.randbytes(5000) + bytes(3 * MIB if step > 1 else 5000) + generator.randbytes(70)
    packed = gzip.compress(data, level) + gzip.compress(data[:99], level)
    unpack, unpacked = Gunzip(), b""
    for start in range(0, len(packed), step):
        piece, is_last = packed[start : start + step], start + step >= len(packed)
        unpacked += unpack(piece, is_last)
        while unpack.has_more:
            unpacked += unpack(b"", is_last)
    assert unpacked == data + data[:99]


def test_unpacking_takes_no_more_memory_than_its_limit():
    bomb = gzip.compress(bytes(256 * MIB), 9)
    unpack = Gunzip()
    tracemalloc.start()
    try:
        total = len(unpack(bomb, True))
        while unpack.has_more:
            total += len(unpack(b"", True))
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    assert total == 256 * MIB


def test_ten_thousand_empty_members_are_no_error():
    unpack = Gunzip()
    assert unpack(gzip.compress(b"") * 10_000, True) == b"" and not unpack.has_more
    with pytest.raises(ApiError, match="breaks off"):
        unpack(gzip.compress(b"")[:-1], True)


def raw(server, method, path, **headers):
    """Status, headers and body as they were sent; `requests` would ask for gzip, and unpack it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(GOOD if method == "POST" else None)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br, gzip;Q=0, *", False),
        ("identity", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip, *;q=0", True),
        ("gzippy", False),
        ("gzip;q=word", False),
    ],
)
def test_answers_are_packed_for_who_asks_for_it(server, accepted, is_packed):
    asked = {} if accepted is None else {"Accept_Encoding": accepted}
    for path in ("/v1/models/unet_1d/metadata", "/openapi.json"):
        status, headers, body = raw(server, "GET", path, **asked)
        assert status == 200 and headers["Vary"] == "Accept-Encoding"
        assert headers["Content-Encoding"] == ("gzip" if is_packed else None)
        assert int(headers["Content-Length"]) == len(body)
        json.loads(gzip.decompress(body) if is_packed else body)


def test_predictions_are_packed_too_and_stems_are_not(server):
    length = {"Content_Length": str(len(GOOD)), "Accept_Encoding": "gzip"}
    status, headers, body = raw(server, "POST", PREDICT, **length)
    assert status == 200 and headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body)) == server.post(PREDICT, data=GOOD).json()
    for path, kind in ((SONG, "audio/wav"), ("/separate?model=unet_1d", "application/zip")):
        answer = server.post(path, data=encoded(noise(8000, 1)), headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Content-Type"] == kind and "Content-Encoding" not in answer.headers


GETS = ["/", "/healthz", "/readyz", "/metrics", "/models", "/openapi.json", "/static/page.js", "/static/icon.svg"]
GETS += [f"/v1/models/unet_1d{where}{what}" for where in ("", "/versions/1") for what in ("", "/metadata")]
GETS += ["/v1/models/unet_1d/labels/stable", "/demo-song"]
CHANGING = {"date", "content-length"}


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_head_is_answered_as_get_without_the_body(server, path, accepted):
    status, headers, body = raw(server, "HEAD", path, Accept_Encoding=accepted)
    _, expected, content = raw(server, "GET", path, Accept_Encoding=accepted)
    assert (status, body) == (200, b"") and content
    names = {name.lower() for name in expected} - CHANGING
    assert {name: headers[name] for name in names} == {name: expected[name] for name in names}
    if path != "/metrics":
        # Those count this request as well.
        assert headers["Content-Length"] == expected["Content-Length"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/static/nothing.js", 404),
        ("/v1/models/none", 404),
        ("/v1/models/unet_1d/versions/x", 400),
        ("/separate", 405),
        ("/separate/jobs/no-such-job", 404),
    ],
)
def test_head_of_what_is_not_there(server, path, status):
    assert raw(server, "HEAD", path)[::2] == (status, b"")


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("OPTIONS", "/", 204, "GET, HEAD"),
        ("OPTIONS", "/healthz", 204, "GET, HEAD"),
        ("OPTIONS", "/separate", 204, "POST"),
        ("OPTIONS", "/static/page.js", 204, "GET, HEAD"),
        ("OPTIONS", "/v1/models/unet_1d", 204, "GET, HEAD"),
        ("OPTIONS", PREDICT, 204, "POST"),
        ("PUT", "/readyz", 405, "GET, HEAD"),
        ("DELETE", "/static/page.js", 405, "GET, HEAD"),
        ("GET", "/separate", 405, "POST"),
        ("PATCH", "/separate", 405, "POST"),
        ("OPTIONS", "/nothing", 404, None),
    ],
)
def test_methods_that_are_not_answered_name_those_that_are(server, method, path, status, allowed):
    answer = requests.request(method, server.url + path, timeout=600)
    assert (answer.status_code, answer.headers.get("Allow")) == (status, allowed)
    assert bool(answer.content) == (status != 204)


@pytest.mark.parametrize("name", ["a%0Ab", "unet_1d%0A", "a%0Ab/versions/1"])
def test_a_line_feed_in_a_path_takes_no_limit_away(server, name):
    status, body = sent(server, head(f"/v1/models/{name}:predict", "Content-Length: 99999999999"))
    assert status == 413 and "expected at most" in json.loads(body)["error"]
    status, body = sent(server, head(f"/v1/models/{name}:predict%0A", "Content-Length: 99999999999"))
    assert status == 413

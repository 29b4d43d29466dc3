"""Whole songs through `POST /separate`: stems like those of the same model without a server, while they are made."""

import contextlib
import io
import re
import tempfile
import threading
import zipfile

import numpy as np
import pytest
import requests
import soundfile

from pipelines.audio import reading
from sepnet.separation.separator import Separator
from sepnet.serving.engine.options import ServeOptions
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, noise
from tests.sepnet.serving.conftest import eventually, running

RATE = 11_025
LENGTH = 30 * RATE + 7


@pytest.fixture(scope="module")
def song():
    """Half a minute in mono, at another rate than the model's."""
    return noise(LENGTH, 1)


@pytest.fixture(scope="module")
def expected(exported, song):
    """The stems of what libsndfile reads of that song in 16 bit."""
    heard, _ = soundfile.read(io.BytesIO(encoded(song)), dtype="float32", always_2d=True)
    return Separator(exported["unet_1d"])(heard, RATE)


def encoded(samples, rate=RATE, container="WAV", subtype="PCM_16"):
    """An audio file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()


@pytest.mark.parametrize(("encoding", "tolerance"), [("PCM_16", 1 / 32768), ("PCM_24", 1 / (1 << 23)), ("FLOAT", 1e-6)])
def test_a_zip_of_stems(server, song, expected, encoding, tolerance):
    answer = server.post(f"/separate?model=unet_1d&name=a/b/My+Song.wav&encoding={encoding}", data=encoded(song))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="My Song.stems.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None and archive.namelist() == [f"{source}.wav" for source in SOURCES]
        for source in SOURCES:
            file = io.BytesIO(archive.read(f"{source}.wav"))
            assert soundfile.info(file).subtype == encoding
            file.seek(0)
            stem, rate = soundfile.read(file, dtype="float32", always_2d=True)
            assert rate == RATE and stem.shape == song.shape
            np.testing.assert_allclose(stem, expected[source], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("container", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
def test_one_stem_of_any_format(server, song, container, subtype):
    sent = encoded(song, container=container, subtype=subtype)
    decoded, _ = soundfile.read(io.BytesIO(sent), always_2d=True)
    answer = server.post("/separate?model=unet_1d&stem=drums", data=sent)
    assert answer.status_code == 200 and int(answer.headers["content-length"]) == len(answer.content)
    stem, rate = soundfile.read(io.BytesIO(answer.content), always_2d=True)
    assert (rate, stem.shape) == (RATE, decoded.shape)


@pytest.fixture
def may_go_on(monkeypatch):
    """An event that models wait for before the second block."""
    from sepnet.serving.engine import runner

    event, calls, unchanged = threading.Event(), [], runner.run_signature

    def run_signature(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            assert event.wait(30)
        return unchanged(*arguments)

    monkeypatch.setattr(runner, "run_signature", run_signature)
    return event


def test_blocks_are_sent_as_they_are_ready_and_progress_can_be_asked_for(saved_models, may_go_on):
    with running(ServeOptions(saved_models=saved_models)) as server:
        sent = encoded(noise(25 * SAMPLE_RATE, 2), SAMPLE_RATE)
        url = f"{server.url}/separate?model=unet_1d&stem=vocals&job=progress-1"
        with requests.post(url, data=sent, stream=True, timeout=60) as answer:
            received = b""
            while len(received) < 4 * 9 * SAMPLE_RATE:
                chunk = answer.raw.read(1000)
                assert chunk
                received += chunk
            progress = server.get("/separate/jobs/progress-1").json()
            assert progress["state"] == "separating" and progress["seconds"] == 25
            assert 9 < progress["seconds_done"] < 12
            again = server.post("/separate?model=unet_1d&job=progress-1", data=sent)
            assert again.status_code == 409
            may_go_on.set()
            received += answer.raw.read()
        assert len(received) == 44 + 4 * 25 * SAMPLE_RATE
        eventually(lambda: server.get("/separate/jobs/progress-1").json()["state"] == "done")
        assert server.get("/separate/jobs/progress-1").json()["seconds_done"] == 25


WRONG = {
    "no audio": ("/separate", b"no audio at all" * 100, 415, "no audio file"),
    "nothing": ("/separate", b"", 415, "the song is empty; expected an audio file"),
    # FFmpeg would open what a playlist names, behind whatever it begins with.
    "playlist": ("/separate", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.wav\n", 415, "no audio file"),
    "playlist behind a tag": (
        "/separate",
        b"ID3\x03\0\0\0\0\0\x10" + bytes(16) + b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.wav\n" * 9,
        415,
        "no audio file",
    ),
    "model": ("/separate?model=..%2Funet_1d", encoded(noise(100, 1)), 404, "Servable not found"),
    "stem": ("/separate?model=unet_1d&stem=kazoo", encoded(noise(100, 1)), 400, "no stem 'kazoo'; unet_1d has vocals"),
    "encoding": ("/separate?encoding=MP3", encoded(noise(100, 1)), 400, "encoding"),
    "job": ("/separate?job=..%2Fx", encoded(noise(100, 1)), 400, "job"),
    "no samples": ("/separate", encoded(noise(0, 1)), 400, "no samples"),
    "NaN": ("/separate", encoded(noise(100, 1) * np.nan, subtype="FLOAT"), 400, "NaN or infinity"),
    "noise of a broken converter": (
        "/separate",
        encoded(np.append(np.zeros((300_000, 1)), [[1e25]], axis=0), subtype="FLOAT"),
        400,
        "1e+25 times full scale, first at 27.211 s",
    ),
    "channels": ("/separate", encoded(noise(100, 9)), 415, "9 channels"),
    "rate": ("/separate", encoded(noise(100, 1), 100), 415, "100 Hz"),
    "hours": ("/separate", encoded(np.zeros((3600 * 8000, 1)), 8000, "FLAC"), 413, "longer than 60 s"),
    "broken": ("/separate", encoded(noise(90_000, 1), container="FLAC")[:60_000], 400, "breaks off"),
}


@pytest.mark.parametrize("case", WRONG)
def test_songs_that_cannot_be_separated_are_refused(server, case):
    path, body, status, message = WRONG[case]
    answer = server.post(path, data=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]
    assert "sepnet-song" not in answer.text


def test_a_wav_header_that_claims_hours_gets_what_is_there(server):
    """Its length is that of its samples, whatever it says."""
    lying = bytearray(encoded(noise(8000, 1), 8000))
    lying[40:44] = b"\xff\xff\xff\x7f"
    answer = server.post("/separate?model=unet_1d&stem=vocals", data=bytes(lying))
    assert answer.status_code == 200 and len(answer.content) == 44 + 2 * 8000


def test_what_is_longer_than_its_header_claims_is_stopped_at_the_limit(server):
    """Hours of silence are a few kilobytes, whatever the header says of them."""
    silence = bytearray(encoded(np.zeros((3600 * 8000, 1)), 8000, "FLAC"))
    assert len(silence) < 200_000
    # The last 36 bits of these eight bytes are the length; 0 says that it is unknown.
    assert int.from_bytes(silence[18:26], "big") & ((1 << 36) - 1) == 3600 * 8000
    silence[21:26] = bytes([silence[21] & 0xF0, 0, 0, 0, 0])
    answer = server.post("/separate?model=unet_1d", data=bytes(silence))
    assert answer.status_code == 413 and "longer than 60 s" in answer.json()["error"]


def test_what_nobody_foresaw_in_a_song_is_one_line_and_in_the_log(server, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("unforeseen\nin two lines")

    song = encoded(noise(100, 1))
    with monkeypatch.context() as patch:
        patch.setattr(reading.Recording, "blocks", fail)
        answer = server.post("/separate?model=unet_1d", data=song)
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed at this song; its log says more"}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "cannot separate a song" and record.exc_info[0] is RuntimeError
    assert server.post("/separate?model=unet_1d", data=song).status_code == 200


@contextlib.contextmanager
def no_file_larger_than(num_bytes):
    """Writing ends there with an error, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    unchanged = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, unchanged[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unchanged)


def test_a_disk_without_room_is_told(server, monkeypatch, tmp_path, caplog):
    """For the song, for its stems, and for their folder."""
    silence = encoded(np.zeros((25 * SAMPLE_RATE, 2)), SAMPLE_RATE, "FLAC")
    song = encoded(noise(60_000, 1))
    with no_file_larger_than(100_000):
        for address, data in (("/separate?model=unet_1d", song), ("/separate?model=unet_1d&stem=drums", silence)):
            answer = server.post(address, data=data)
            assert answer.status_code == 507
            assert answer.json()["error"] == "the server cannot keep the song: File too large"
    # One block and a bit, each sample of which has 8 bytes.
    with no_file_larger_than(8 * 11 * SAMPLE_RATE), pytest.raises(requests.RequestException):
        server.post("/separate?model=unet_1d&stem=vocals&encoding=FLOAT&job=full-disk", data=silence)
    assert "a song broke off: the server cannot keep the song: File too large" in caplog.messages
    progress = server.get("/separate/jobs/full-disk").json()
    assert (progress["state"], progress["error"]) == ("failed", "the server cannot keep the song: File too large")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        answer = server.post("/separate?model=unet_1d", data=silence)
    assert answer.status_code == 507
    assert answer.json()["error"] == "the server cannot keep the song: No such file or directory"


def test_a_form_is_refused_with_what_to_do(server):
    answer = server.post("/separate", files={"file": ("song.wav", encoded(noise(100, 1)))})
    assert answer.status_code == 415 and "--data-binary" in answer.json()["error"]


def test_a_client_that_goes_away_leaves_nothing(server, tmp_path, monkeypatch, may_go_on):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sent = encoded(noise(40 * SAMPLE_RATE, 2), SAMPLE_RATE)
    url = server.url + "/separate?model=unet_1d&job=goes-away"
    with requests.post(url, data=sent, stream=True, timeout=60) as answer:
        assert answer.raw.read(100)
        assert list(tmp_path.iterdir())
    may_go_on.set()
    eventually(lambda: not list(tmp_path.iterdir()))
    assert server.get("/separate/jobs/goes-away").json()["state"] in ("gone", "done")


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e25])
def test_stems_that_are_no_sound_are_an_error_and_no_file(gain_model, broken):
    folder = gain_model({"vocals": broken, "rest": 0.5}, sample_rate=8000)
    with running(ServeOptions(saved_models=folder.parent)) as server:
        answer = server.post("/separate?encoding=FLOAT", data=encoded(noise(100, 1), 8000))
        assert answer.status_code == 400
        assert re.match("the model makes .* of the audio as vocals, first at 0.000 s", answer.json()["error"])

"""Songs that `POST /separate` reads: those of the command line, whatever the format; and nothing else than these."""

import io
import socket
import urllib.parse
import zipfile

import numpy as np
import pytest
import soundfile

from pipelines.audio import reading
from sepnet.serving.engine import runner
from sepnet.serving.engine.options import ServeOptions
from tests.sepnet.helpers import noise
from tests.sepnet.serving.conftest import eventually, running
from tests.sepnet.serving.test_separate_route import encoded


@pytest.fixture(scope="module")
def server(identity):
    with running(ServeOptions(saved_models=identity.parent, poll_seconds=60)) as found:
        yield found


def test_what_was_lost_of_a_song_is_told(server, tmp_path):
    """The remark of the command line stands in a header, and is told to who asks for the progress."""
    path = tmp_path / "song.mp3"
    path.write_bytes(encoded(noise(44_100, 1), 44_100, "MP3", "MPEG_LAYER_III") + bytes(4096))
    with reading.open_audio(path) as recording:
        num_samples = sum(map(len, recording.blocks()))
        remarks = recording.remarks()
    assert "could not be decoded" in remarks
    answer = server.post("/separate?stem=vocals&job=remarkable", data=path.read_bytes())
    assert answer.headers["X-Remarks"] == remarks and len(answer.content) == 44 + 2 * num_samples
    eventually(lambda: server.get("/separate/jobs/remarkable").json()["state"] == "done")
    assert server.get("/separate/jobs/remarkable").json()["remarks"] == remarks
    whole = server.post("/separate?stem=vocals&job=whole-song", data=encoded(noise(100, 1), 44_100))
    assert "X-Remarks" not in whole.headers and server.get("/separate/jobs/whole-song").json()["remarks"] == ""


def test_a_song_of_many_channels_takes_no_more_at_once_than_any(server, monkeypatch):
    """Four blocks of 10 s at a time, for a model of two channels."""
    samples, unchanged = [], runner.run_signature

    def run_signature(version, signature, inputs):
        samples.append(inputs["mixture"].shape[0] * inputs["mixture"].shape[1])
        return unchanged(version, signature, inputs)

    monkeypatch.setattr(runner, "run_signature", run_signature)
    song = noise(11 * 44_100, 8)
    answer = server.post("/separate?stem=vocals&encoding=FLOAT", data=encoded(song, 44_100, subtype="FLOAT"))
    stem, _ = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    np.testing.assert_allclose(stem, song, rtol=0, atol=1e-6)
    assert sum(samples) >= 4 * len(song) and max(samples) <= 30 * 44_100


@pytest.fixture
def secret(tmp_path):
    """A song that lies on the server, and whoever listens on the network."""
    path = tmp_path / "secret.mp3"
    soundfile.write(path, noise(8000, 1), 8000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield path, f"http://127.0.0.1:{listener.getsockname()[1]}/secret.mp3"
        with pytest.raises(BlockingIOError):
            listener.accept()


SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\na=control:{0}\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand'
    ':2011" type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{0}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
IMF = '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{0}</Id>'
NAMING = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n{0}\n",
    "concat": "ffconcat version 1.0\nfile '{0}'\n",
    "concat without safety": "ffconcat version 1.0\nfile 'file:{0}'\nduration 1\n",
    "pls": "[playlist]\nFile1={0}\nNumberOfEntries=1\n",
    "sdp": SDP,
    "asx": '<asx version="3.0"><entry><ref href="{0}"/></entry></asx>',
    "dash": DASH,
    "imf": IMF,
}


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("where", ["absolute", "relative", "network"])
def test_what_names_other_files_is_refused(server, secret, kind, where):
    """FFmpeg would open what they name: files of the server's, and addresses of its network."""
    path, url = secret
    named = {"absolute": str(path), "relative": "../" * 9 + str(path)[1:], "network": url}[where]
    answer = server.post("/separate?stem=vocals", data=NAMING[kind].format(named).encode())
    assert answer.status_code == 415 and "expected" in answer.text or "no audio" in answer.text, answer.text
    assert "\n" not in answer.json()["error"] and "sepnet-song" not in answer.text


SAID = 'attachment; filename="{}"'
BOTH = SAID + "; filename*=UTF-8''{}"
LONG = "\u97f3" * 100


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Song.mp3", SAID.format("My Song.vocals.wav")),
        ("C:\\music\\a.WAV", SAID.format("a.vocals.wav")),
        ("01. Intro", SAID.format("01. Intro.vocals.wav")),
        ("song.stem.mp4", SAID.format("song.vocals.wav")),
        ("caf\u00e9.flac", BOTH.format("caf_.vocals.wav", "caf%C3%A9.vocals.wav")),
        ("100%.ogg", BOTH.format("100_.vocals.wav", "100%25.vocals.wav")),
        ("\u6771\u4eac \U0001f600", BOTH.format("__ _.vocals.wav", "%E6%9D%B1%E4%BA%AC%20%F0%9F%98%80.vocals.wav")),
        ('a"b\\c"; filename="x', SAID.format("c_; filename=_x.vocals.wav")),
        ("line\r\nSet-Cookie: x", SAID.format("line__Set-Cookie_ x.vocals.wav")),
        ("tab\tnull\0bell\a\x7f", SAID.format("tab_null_bell__.vocals.wav")),
        ("turned\u202egnp.exe", SAID.format("turned_gnp.exe.vocals.wav")),
        ("..", SAID.format("song.vocals.wav")),
        ("", SAID.format("song.vocals.wav")),
        ("/", SAID.format("song.vocals.wav")),
        ("a" * 300, SAID.format("a" * 180 + ".vocals.wav")),
        (LONG, BOTH.format("_" * 60 + ".vocals.wav", urllib.parse.quote(LONG[:60]) + ".vocals.wav")),
    ],
)
def test_the_names_of_files_to_save(server, name, expected):
    song = encoded(noise(10, 1), 44_100)
    answer = server.post(f"/separate?stem=vocals&name={urllib.parse.quote(name)}", data=song)
    assert answer.status_code == 200 and answer.headers["Content-Disposition"] == expected


def test_a_name_that_is_no_utf_8_is_no_error(server):
    """Such names come from old archives, and JavaScript may hold half of a character."""
    for name in ("caf%E9", "%ED%A0%80", "%"):
        answer = server.post(f"/separate?stem=vocals&name={name}", data=encoded(noise(10, 1), 44_100))
        assert answer.status_code == 200 and answer.headers["Content-Disposition"].startswith("attachment; filename=")


def test_stems_of_any_name_are_sent(gain_model):
    names = ["gesang \u97f3", "a/b", "..", 'q"u', "50%"]
    folder = gain_model(dict.fromkeys(names, 0.5), sample_rate=8000)
    with running(ServeOptions(saved_models=folder.parent)) as server:
        song = encoded(noise(10, 1), 8000)
        archive = zipfile.ZipFile(io.BytesIO(server.post("/separate?name=x", data=song).content))
        assert archive.namelist() == ["gesang \u97f3.wav", "a_b.wav", "stem 3.wav", "q_u.wav", "50%.wav"]
        answer = server.post(f"/separate?name=x&stem={urllib.parse.quote(names[0])}", data=song)
        assert answer.headers["Content-Disposition"] == BOTH.format("x.gesang _.wav", "x.gesang%20%E9%9F%B3.wav")

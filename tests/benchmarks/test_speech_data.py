"""Recordings of speech and noise, out of packages."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
import soundfile

from benchmarks.debian import read_table
from benchmarks.speech_data import TABLE, bring_recordings, parts_of

PARTS = [
    {"source": "speech", "what": "talk", "minutes": 1, "folder": "talk", "files": ["*.wav"], "left_out": ["*/beep.*"]},
    {"source": "noise", "what": "din", "minutes": 1, "folder": "din.pk3/x", "files": ["*.ogg"], "is_held_out": True},
]


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def package(write_package):
    files = {
        "./usr/share/talk/a/one.wav": b"one",
        "./usr/share/talk/beep.wav": b"a beep, but not in a folder",
        "./usr/share/talk/b/beep.wav": b"beep",
        "./usr/share/talk/c.txt": b"text",
        "./usr/share/other/d.wav": b"music",
        "./usr/share/din.pk3": zipped({"x/wind.ogg": b"wind", "y/rain.ogg": b"rain"}),
        "./usr/share/doc/mixed/copyright": b"All may listen.",
    }
    return write_package("mixed", files, PARTS)


def test_each_part_goes_to_its_folder_whole_with_its_licence(package, snapshot, tmp_path):
    bring_recordings([package], tmp_path / "out", tmp_path / "packages")
    found = snapshot(tmp_path / "out")
    note = found.pop(tmp_path / "out" / "LICENCES.md")[1].decode()
    assert "| test/noise | mixed 1:2-3 | 0.0 | MIT | 1.0 | din |" in note
    assert {path.relative_to(tmp_path / "out").as_posix(): content for path, (_, content) in found.items()} == {
        "speech/mixed/a/one.wav": b"one",
        "speech/mixed/beep.wav": b"a beep, but not in a folder",
        "speech/mixed/LICENCE.txt": b"All may listen.",
        "test/noise/mixed/wind.ogg": b"wind",
        "test/noise/mixed/LICENCE.txt": b"All may listen.",
    }


def test_a_second_run_changes_nothing_and_needs_no_packages(package, snapshot, tmp_path):
    bring_recordings([package], tmp_path / "out", tmp_path / "packages")
    first = snapshot(tmp_path / "out")
    bring_recordings([package], tmp_path / "out", tmp_path / "nowhere")
    assert snapshot(tmp_path / "out") == first


def test_g722_becomes_the_sound_that_it_stands_for(write_package, tmp_path):
    import av

    speech = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000) / 4
    file = io.BytesIO()
    with av.open(file, "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.round(speech * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    files = {"./usr/prompts/hello.g722": file.getvalue(), "./usr/share/doc/prompts/copyright": b"All may call."}
    parts = [{"source": "speech", "what": "", "minutes": 0, "folder": "prompts", "files": ["*.g722"]}]
    bring_recordings([write_package("prompts", files, parts)], tmp_path / "out", tmp_path / "packages")
    decoded, sample_rate = soundfile.read(tmp_path / "out" / "speech" / "prompts" / "hello.wav")
    assert sample_rate == 16_000 and len(decoded) == len(speech)
    # The two filters of G.722 delay by 22 samples.
    error = decoded[22:] - speech[:-22]
    assert 10 * np.log10(np.mean(speech**2) / np.mean(error**2)) > 20


def test_the_list_needs_nothing_and_tells_everything(run, tmp_path):
    cache = str(tmp_path / "cache")
    outcome = run("benchmarks.speech_data", "--list", PATH=str(tmp_path), SEPNET_CACHE=cache, COLUMNS="200")
    assert outcome.status == 0 and list(tmp_path.iterdir()) == []
    for name, entry in json.loads(TABLE.read_text()).items():
        assert name in outcome.stdout and entry["licence"] in outcome.stdout
    assert run("benchmarks.speech_data").status == 2


def test_speakers_and_noises_are_held_out_and_every_folder_is_of_one_part():
    packages = read_table(TABLE)
    places = [part.place(package.name).as_posix() for package in packages for part in parts_of(package)]
    assert len(set(places)) == len(places)
    for kind in ("speech/", "noise/", "test/speech/", "test/noise/"):
        assert any(place.startswith(kind) for place in places)


def test_no_recording_is_in_training_and_held_out():
    """No pattern of a held-out part takes a file that its package's training part takes too."""
    for package in read_table(TABLE):
        held_out = [part for part in parts_of(package) if part.is_held_out]
        training = [part for part in parts_of(package) if not part.is_held_out]
        for part in held_out:
            for pattern in part.files:
                example = re.sub(r"\[(.).*?\]", r"\1", pattern).replace("*", "x")
                name = f"{part.folder}/{example}"
                names = [name] if "." in pattern else [f"{name}{suffix}" for suffix in (".ogg", ".wav")]
                assert all(part.name_of(name) for name in names)
                assert not any(other.name_of(name) for other in training for name in names)

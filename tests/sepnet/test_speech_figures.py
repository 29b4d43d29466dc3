"""PESQ and STOI of speech, through the commands: a real voice, and the packages called directly."""

import json

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from benchmarks.speech import main as benchmark
from pipelines.audio.reading import read_streams
from pipelines.errors import UserError
from sepnet.evaluate import main
from sepnet.evaluation import bss_eval, speech
from sepnet.evaluation.speech import speech_scores

# Not every machine can build it.
pesq = pytest.importorskip("pesq").pesq
stoi = pytest.importorskip("pystoi").stoi

SOURCES = {"speech": 0.5, "noise": 0.5}
SAMPLE_RATE = 16_000


@pytest.fixture(scope="module")
def voice(real_track):
    """3 s of a voice, and of drums, which are its noise: stereo at 44.1 kHz, by source."""
    streams = next(read_streams(real_track))
    return {"speech": streams[4][44_100:][: 3 * 44_100], "noise": 0.3 * streams[1][44_100:][: 3 * 44_100]}


@pytest.fixture(scope="module")
def mono(voice):
    """The same at 16 kHz, mono."""
    return {name: resample_poly(audio.mean(axis=1), 160, 441) for name, audio in voice.items()}


@pytest.fixture(scope="module")
def model(gain_model):
    """A model whose stems are both half of the mixture."""
    return gain_model(SOURCES, sample_rate=SAMPLE_RATE, num_channels=1)


@pytest.fixture
def songs(tmp_path, mono):
    """Two songs, the second with more noise."""
    for number, gain in enumerate((1.0, 3.0)):
        folder = tmp_path / "songs" / "test" / f"song {number}"
        folder.mkdir(parents=True)
        for name, audio in mono.items():
            audio = audio * gain if name == "noise" else audio
            soundfile.write(folder / f"{name}.wav", 0.5 * audio, SAMPLE_RATE, "PCM_16")
    return tmp_path / "songs"


@pytest.fixture
def evaluate(model, songs, tmp_path, capsys):
    """Runs the command on the songs and returns the figures of all methods and what it prints."""

    def run(*flags, quick=True):
        flags = [*flags, *["--quick"] * quick]
        main([str(model), "--data", str(songs), "-o", str(tmp_path / "out"), "--workers", "1", *flags])
        return json.loads((tmp_path / "out" / "figures.json").read_text())["methods"], capsys.readouterr().out

    return run


def direct(songs) -> dict[str, list[float]]:
    """Returns the packages' figures of each song, the mixture being the estimate."""
    values = {"pesq_wb": [], "stoi": []}
    for song in sorted((songs / "test").iterdir()):
        true, noise = (soundfile.read(song / f"{name}.wav")[0] for name in SOURCES)
        values["pesq_wb"].append(pesq(SAMPLE_RATE, true, true + noise, "wb"))
        values["stoi"].append(stoi(true, true + noise, SAMPLE_RATE))
    return values


def test_figures_are_those_of_the_packages(evaluate, songs):
    figures, printed = evaluate("--speech", "speech")
    expected = direct(songs)
    assert expected["pesq_wb"][0] > expected["pesq_wb"][1] + 0.1
    for method in ("gains", "mixture/num_sources"):
        [(source, row)] = figures[method]["speech"].items()
        assert source == "speech" and (row["excerpts"], row["missing"]) == (2, {"pesq_wb": 0, "stoi": 0})
        for metric, values in expected.items():
            assert row[metric] == pytest.approx(np.mean(values), abs=1e-3)
    assert "speech" not in figures["silence"]
    assert "PESQ (wide band)" in printed and "noisy input" in printed and "left out" not in printed


def test_what_is_not_asked_for_is_kept(evaluate, monkeypatch):
    full, _ = evaluate("--speech", "speech", quick=False)
    evaluate("--speech", "noise,speech")

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(bss_eval, "frame_scores", refuse)
    assert evaluate("--speech", "speech", quick=False)[0] == full
    assert full["gains"]["museval"] and full["gains"]["speech"]


def test_it_is_measured_where_it_is_asked_for(evaluate, songs, tmp_path, monkeypatch):
    figures, printed = evaluate("--speech", "noise, speech")
    assert list(figures["gains"]["speech"]) == ["noise", "speech"] and "STOI of noise" in printed
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "songs").rglob("*.json")}
    evaluate("--speech", "noise,speech")
    monkeypatch.setattr(speech, "NEEDED_PACKAGES", ("pystoi", "no_such_package"))
    figures, printed = evaluate()
    assert not any("speech" in row for row in figures.values()) and "STOI" not in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with pytest.raises(UserError, match=r"^no_such_package must be installed for PESQ .*sepnet\[evaluate\]"):
        evaluate("--speech", "speech")
    with pytest.raises(UserError, match="--speech names vocals, and the models give speech, noise"):
        evaluate("--speech", "speech,vocals")
    assert speech.speech_sources(None, ("vocals", "other"), quick=False) == ()
    monkeypatch.undo()
    assert speech.speech_sources(None, SOURCES, quick=False) == ("speech",)


def test_silent_speech_is_left_out_and_counted(evaluate, songs):
    expected = direct(songs)
    stem = songs / "test" / "song 1" / "speech.wav"
    soundfile.write(stem, np.zeros(soundfile.info(stem).frames), SAMPLE_RATE, "PCM_16")
    figures, printed = evaluate("--speech", "speech")
    row = figures["gains"]["speech"]["speech"]
    assert row["missing"] == {"pesq_wb": 1, "stoi": 1}
    assert row["pesq_wb"] == pytest.approx(expected["pesq_wb"][0], abs=1e-3)
    assert "left out of PESQ (wide band) of gains, mixture/num_sources: 1 of 2 excerpts" in printed


@pytest.mark.parametrize(
    ("estimate", "missing"),
    [("noise", set()), ("silence", {"pesq_wb"}), ("whisper", {"pesq_wb"}), ("short", {"pesq_wb", "stoi"})],
)
def test_what_packages_refuse_has_no_figure(mono, estimate, missing):
    true, noise = mono["speech"][:, None], mono["noise"][:, None]
    estimated = {"silence": 0 * noise, "whisper": 1e-30 * noise}.get(estimate, noise)
    if estimate == "short":
        true, estimated = true[20_000:23_000], estimated[20_000:23_000]
    scores = speech_scores(true.astype(np.float32), estimated.astype(np.float32), SAMPLE_RATE)
    assert {metric for metric, [value] in scores.items() if value is None} == missing


def test_other_rates_and_stereo(voice, mono):
    """Every channel by itself; at 8 kHz in the narrow band."""
    mixture = sum(voice.values())
    scores = speech_scores(voice["speech"], mixture, 44_100)
    for channel in range(2):
        true, estimated = (
            resample_poly(audio[:, channel].astype(float), 160, 441) for audio in (voice["speech"], mixture)
        )
        assert scores["pesq_wb"][channel] == pytest.approx(pesq(16_000, true, estimated, "wb"), abs=0.02)
        assert scores["stoi"][channel] == pytest.approx(stoi(true, estimated, 16_000), abs=0.005)
    true, estimated = (resample_poly(audio, 1, 2).astype(np.float32) for audio in (mono["speech"], sum(mono.values())))
    scores = speech_scores(true[:, None], estimated[:, None], 8000)
    assert scores == {
        "pesq_nb": [pytest.approx(pesq(8000, true, estimated, "nb"), abs=1e-3)],
        "stoi": [pytest.approx(stoi(true, estimated, 8000), abs=1e-4)],
    }


def test_long_songs_are_measured_in_pieces(mono):
    true, estimated = (np.tile(audio, 6).astype(np.float32) for audio in (mono["speech"], sum(mono.values())))
    scores = speech_scores(true[:, None], estimated[:, None], SAMPLE_RATE)
    half = len(true) // 2
    for piece, part in enumerate((slice(0, half), slice(half, None))):
        assert scores["pesq_wb"][piece] == pytest.approx(pesq(16_000, true[part], estimated[part], "wb"), abs=1e-3)
        assert scores["stoi"][piece] == pytest.approx(stoi(true[part], estimated[part], 16_000), abs=1e-4)


def test_the_benchmark_gives_the_same_figures(model, songs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    benchmark([str(model), "--data", str(songs)])
    written = json.loads((tmp_path / "benchmarks" / "results" / "speech.json").read_text())
    for name in ("noisy input", "gains"):
        for metric, values in direct(songs).items():
            mean = written["means"][name][metric]
            assert [song[metric] for song in written["songs"][name].values()] == pytest.approx(values, abs=1e-3)
            assert mean["low"] == pytest.approx(min(values), abs=1e-3) and mean["num_songs"] == 2
            assert mean["mean"] == pytest.approx(np.mean(values), abs=1e-3)
    ratio = written["songs"]["noisy input"]["song 0"]["si_sdr"]
    true, noise = (soundfile.read(songs / "test" / "song 0" / f"{name}.wav")[0] for name in SOURCES)
    target = true * (true @ (true + noise)) / (true @ true)
    assert ratio == pytest.approx(10 * np.log10((target @ target) / np.sum((true + noise - target) ** 2)), abs=0.01)
    assert "speech of 2 test songs" in capsys.readouterr().out

"""Whole songs against the true stems, through the command: counted here with NumPy and museval itself."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from pipelines.songs.layouts import Track
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.evaluate import main
from sepnet.evaluation import bss_eval
from sepnet.evaluation.aggregates import AGGREGATES, HEADLINE, aggregate
from sepnet.evaluation.oracle_masks import ideal_ratio_mask
from sepnet.evaluation.pictures import draw_comparison
from sepnet.evaluation.published import read_published, why_not_comparable
from tests.conftest import REPOSITORY

GAINS = {"vocals": 0.5, "drums": 0.25}
SAMPLE_RATE = 8000
needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="musdb, which museval imports, needs both"
)


@pytest.fixture(scope="module")
def model(gain_model):
    """A model whose stems are the mixture times a gain, with the config that an exported run has."""
    folder = gain_model(GAINS, sample_rate=SAMPLE_RATE, num_channels=1)
    contract = folder / "1" / "assets.extra" / "sepnet.json"
    values = json.loads(contract.read_text())
    contract.write_text(json.dumps({**values, "config": json.loads(Config(Data(sources=tuple(GAINS))).to_json())}))
    return folder


@pytest.fixture
def songs(tmp_path, write_song):
    for number, length in enumerate((17_000, 25_000)):
        folder = tmp_path / "songs" / "test" / f"song {number}"
        write_song(folder, GAINS, num_samples=length, num_channels=1, seed=number)
    return tmp_path / "songs"


@pytest.fixture
def evaluate(model, songs, tmp_path, capsys):
    """Runs the command on the songs and returns the figures that it leaves and what it prints."""

    def run(*flags, output="out"):
        main([str(model), "--data", str(songs), "-o", str(tmp_path / output), "--workers", "1", *flags])
        return json.loads((tmp_path / output / "figures.json").read_text()), capsys.readouterr().out

    return run


def read_stem(song, stem):
    return soundfile.read(song / f"{stem}.wav", always_2d=True)[0]


def test_errors_are_the_mean_over_all_samples(evaluate, songs):
    figures, printed = evaluate("--quick")
    methods = figures["methods"]
    answers = {"gains": lambda mixture, source: GAINS[source] * mixture, "silence": lambda mixture, source: 0 * mixture}
    answers["mixture/num_sources"] = lambda mixture, source: mixture / 2
    assert list(methods) == list(answers)
    for name, answer in answers.items():
        expected, ratios = {}, []
        for source in GAINS:
            errors = []
            for song in sorted((songs / "test").iterdir()):
                true, mixture = read_stem(song, source), read_stem(song, "mixture")
                errors.append(np.square(answer(mixture, source) - true))
                ratios.append(10 * np.log10(np.square(true).sum() / errors[-1].sum()))
            expected[f"mse_{source}"] = np.concatenate(errors).mean()
        expected["mse"] = np.mean(list(expected.values()))
        assert {key: methods[name][key] for key in expected} == pytest.approx(expected, rel=1e-4)
        assert methods[name]["sdr"] == pytest.approx(np.mean(ratios), abs=1e-4)
    assert "gains" in printed and "SI-SDR" in printed and "museval" not in printed


def test_museval_writes_what_it_reads_again(evaluate, tmp_path):
    """museval's own store, with its own aggregates, finds our files and comes to our figures."""
    figures, printed = evaluate()
    store = bss_eval._museval().aggregate.EvalStore
    ways = {"median_of_medians": ("median", "median"), "mean_of_medians": ("median", "mean")}
    for method, folder in (("gains", "gains"), ("ideal ratio mask", "ideal ratio mask")):
        for name, (over_frames, over_songs) in ways.items():
            own = store(over_frames, over_songs)
            own.add_eval_dir(tmp_path / "out" / "museval" / folder)
            for (source, metric), value in own.agg_frames_tracks_scores().items():
                assert figures["methods"][method]["museval"][name][metric][source] == pytest.approx(value, abs=1e-9)
        pooled = own.df.groupby(["target", "metric"])["score"]
        for name, values in (("pooled_median", pooled.median()), ("pooled_mean", pooled.mean())):
            for (source, metric), value in values.items():
                assert figures["methods"][method]["museval"][name][metric][source] == pytest.approx(value, abs=1e-9)
        assert len(own.df) == 2 * 4 * (2 + 3)
    assert "museval" not in figures["methods"]["silence"]
    masked, floor = (figures["methods"][name]["mse"] for name in ("ideal ratio mask", "mixture/num_sources"))
    assert masked < 0.9 * floor
    assert all(name.replace("_", " ") in printed for name in AGGREGATES)
    evaluate(output="again")
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.json")]
    assert len(written) == 2 + 2 * 4 + 2 * 3
    for path in written:
        assert (tmp_path / "again" / path).read_bytes() == (tmp_path / "out" / path).read_bytes()


def stored_pair():
    generator = np.random.default_rng(5)
    sources, noise = (generator.uniform(-0.5, 0.5, (2, 20_000, 1)) for _ in range(2))
    return sources, sources + 0.3 * sources[::-1] + 0.1 * noise


# What `museval.evaluate(*stored_pair(), win=8000, hop=8000)` of museval 0.4.1 gives, by source and second.
STORED = {
    "SDR": [[10.0577, 10.06323], [9.89023, 9.96827]],
    "ISR": [[25.73631, 25.73112], [26.6788, 26.81769]],
    "SIR": [[10.68168, 10.60496], [10.4932, 10.51842]],
    "SAR": [[20.74253, 20.63603], [20.50505, 20.57251]],
}


def our_scores():
    named = [dict(zip("ab", stems.astype(np.float32), strict=True)) for stems in stored_pair()]
    scores, left_out = bss_eval.frame_scores(*named, SAMPLE_RATE)
    assert left_out == {}
    return scores


def test_scores_are_those_that_museval_gave():
    scores = our_scores()
    for metric, values in STORED.items():
        np.testing.assert_allclose([scores[source][metric] for source in "ab"], values, atol=1e-4)
    written = json.loads(bss_eval.track_json("a song", scores))
    assert written["museval_version"] == importlib.metadata.version("museval")
    assert [target["name"] for target in written["targets"]] == ["a", "b"]
    second = written["targets"][1]["frames"][1]
    assert (second["time"], second["duration"]) == (1.0, 1.0)
    assert second["metrics"] == {metric: pytest.approx(values[1][1], abs=1e-4) for metric, values in STORED.items()}
    # museval alone would have needed ffmpeg for this.
    assert "museval" not in sys.modules or "musdb" in sys.modules


@needs_ffmpeg
def test_scores_are_those_of_museval_called_directly():
    import museval

    direct = museval.evaluate(*stored_pair(), win=SAMPLE_RATE, hop=SAMPLE_RATE)
    scores = our_scores()
    for metric, values in zip(("SDR", "ISR", "SIR", "SAR"), direct, strict=True):
        np.testing.assert_allclose([scores[source][metric] for source in "ab"], values, atol=1e-5)


def test_what_is_silent_is_left_out_and_listed(evaluate, songs, tmp_path):
    song = songs / "test" / "song 0"
    for stem in GAINS:
        audio = read_stem(song, stem)
        audio[: SAMPLE_RATE if stem == "vocals" else None] = 0
        soundfile.write(song / f"{stem}.wav", audio, SAMPLE_RATE, "PCM_16")
    stale = tmp_path / "out" / "museval" / "gains" / "test" / "song 0.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("figures of the song as it was before")
    figures, printed = evaluate()
    assert figures["too_quiet"] == [{"song": "song 0", "source": "drums"}]
    reasons = {(one["method"], one["song"], one["source"]): one["reason"] for one in figures["left_out"]}
    assert reasons["gains", "song 0", "drums"] == "no sound in the true stem"
    assert reasons["gains", "song 0", "vocals"] == "BSSEval needs two sources that are heard"
    assert {key[1] for key in reasons} == {"song 0"}
    assert "left out of SI-SDR and SDR: drums of 'song 0'" in printed and "no sound in the true stem" in printed
    # The other song alone makes the figures.
    assert len(figures["methods"]["gains"]["song_medians"]["vocals"]) == 1
    assert not stale.exists()
    # Whatever was measured before, the same call gives the same bytes.
    for output in ("out", "quick"):
        evaluate("--quick", output=output)
    for name in ("figures.json", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "quick" / name).read_bytes()


def test_silent_seconds_and_estimates_as_museval_takes_them():
    generator = np.random.default_rng(0)
    sources = {name: generator.uniform(-0.5, 0.5, (3000, 1)) for name in "abc"}
    estimates = {name: stem + 0.1 * generator.uniform(-0.5, 0.5, (3000, 1)) for name, stem in sources.items()}
    sources["a"][1000:2000] = 0
    scores, left_out = bss_eval.frame_scores(sources, estimates, 1000)
    assert left_out == {}
    assert all(np.isnan(values["SDR"]).tolist() == [False, True, False] for values in scores.values())
    frames = json.loads(bss_eval.track_json("song", scores))["targets"][2]["frames"]
    assert np.isnan(frames[1]["metrics"]["SDR"]) and frames[2]["metrics"]["SDR"] > 10
    sources["a"][:] = 0
    scores, left_out = bss_eval.frame_scores(sources, estimates, 1000)
    assert list(scores) == ["b", "c"] and left_out == {"a": "no sound in the true stem"}
    estimates["b"][:] = 0
    scores, left_out = bss_eval.frame_scores(sources, estimates, 1000)
    assert scores == {} and left_out["c"] == "no sound in the estimate of b, which museval refuses"


def test_aggregates():
    frames = [np.array([1.0, 2.0, 9.0]), np.array([np.nan]), np.array([4.0, np.nan, 6.0, 5.0, 20.0])]
    expected = {"median_of_medians": 3.75, "mean_of_medians": 3.75, "pooled_median": 5.0, "pooled_mean": 47 / 7}
    assert aggregate(frames) == pytest.approx(expected)
    assert aggregate([np.array([np.nan])]) == dict.fromkeys(AGGREGATES)


def test_it_goes_on_and_gives_the_same_bytes(evaluate, songs, tmp_path):
    evaluate("--quick", output="other")
    quick, out = tmp_path / "other", tmp_path / "out"
    first = (quick / "figures.json").read_bytes(), (quick / "manifest.json").read_bytes()
    kept = {path: path.stat().st_mtime_ns for path in (quick / "songs").rglob("*.json")}
    assert len(kept) == 2 * 3
    evaluate("--quick", output="other")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    evaluate("--quick")
    assert ((out / "figures.json").read_bytes(), (out / "manifest.json").read_bytes()) == first
    # A damaged file, and a song that has changed, are measured anew, and nothing else is.
    damaged = out / "songs" / "silence" / "song 1.json"
    damaged.write_text("{")
    stem = songs / "test" / "song 0" / "vocals.wav"
    soundfile.write(stem, -read_stem(stem.parent, "vocals"), SAMPLE_RATE, "PCM_16")
    before = {path: path.stat().st_mtime_ns for path in (out / "songs").rglob("*.json")}
    evaluate("--quick")
    anew = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert anew == {damaged, *(path for path in before if path.name == "song 0.json")}
    assert (out / "manifest.json").read_bytes() != first[1]


def spectrum(signal, length=2048):
    """Frames under a Hann window, half overlapping, from half a frame before the signal on."""
    padded = np.pad(signal, (length // 2, 2 * length))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    starts = range(0, len(signal) + length // 2 + 1, length // 2)
    return np.array([np.fft.rfft(window * padded[start : start + length]) for start in starts])


def signal_of(frames, num_samples, length=2048):
    """The signal whose frames are nearest to these: windowed once more, added up and divided by the windows' power."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    signal, power = np.zeros((2, (len(frames) + 1) * length // 2))
    for number, frame in enumerate(np.fft.irfft(frames)):
        signal[number * length // 2 :][:length] += window * frame
        power[number * length // 2 :][:length] += window**2
    return (signal / np.maximum(power, 1e-12))[length // 2 :][:num_samples]


@pytest.mark.parametrize("num_samples", [9000, 700])
def test_the_ratio_mask_is_the_share_of_the_power(num_samples):
    generator = np.random.default_rng(0)
    sources = {name: generator.uniform(-0.5, 0.5, (num_samples, 2)).astype(np.float32) for name in "ab"}
    sources["a"] = np.cumsum(sources["a"], axis=0) / 20
    mixture = sum(sources.values())
    estimates = ideal_ratio_mask(mixture, sources)
    for name, estimate in estimates.items():
        for channel in range(2):
            powers = {name: np.abs(spectrum(stem[:, channel])) ** 2 for name, stem in sources.items()}
            masked = spectrum(mixture[:, channel]) * powers[name] / sum(powers.values())
            np.testing.assert_allclose(estimate[:, channel], signal_of(masked, num_samples), atol=1e-6)
    np.testing.assert_allclose(sum(estimates.values()), mixture, atol=1e-6)


def test_beside_published_figures(evaluate, tmp_path):
    _, printed = evaluate("--compare")
    for name in ("Wave-U-Net M6 (STL2)", "Open-Unmix UMX", "Spleeter, masks", "Demucs v1", "gains"):
        assert name in printed
    assert "Not to be compared: these are not the 50 test songs of MUSDB18." in printed
    assert max(map(len, printed.splitlines())) <= 100
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_source_that_is_silent_in_every_song_has_no_place_in_the_picture(tmp_path):
    figures = {"museval": {HEADLINE: {"SDR": {"vocals": 3.0, "drums": None}}}}
    row = figures | {"song_medians": {"vocals": [3.0], "drums": []}}
    draw_comparison(tmp_path / "comparison.png", {"gains": row}, ["vocals", "drums"], "")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_published_figures_hold_together():
    published = read_published()
    # 3 hours and 27 minutes, says Spleeter's paper.
    assert len(published["test_songs"]) == 50
    assert sum(published["test_songs"].values()) / 60 == pytest.approx(207, abs=1)
    for system in published["systems"]:
        assert system["source"].startswith("https://") and system["aggregate"] in (*AGGREGATES, None)
        for source, songs in system.get("songs", {}).items():
            assert len(songs) == 50 and np.median(songs) == pytest.approx(system["sdr"][source], abs=0.006)


def test_only_the_whole_of_musdb18_can_be_compared():
    def tracks(**changes):
        songs = {**read_published()["test_songs"], **changes.pop("lengths", {})}
        rate = changes.pop("sample_rate", 44_100)
        return [
            Track(name, "test", {}, rate, round((seconds + 0.5) * rate), frozenset(), frozenset({2}))
            for name, seconds in songs.items()
        ]

    sources = ("vocals", "drums", "bass", "other")
    assert why_not_comparable(tracks(), sources) == ""
    assert "are not the 50 test songs" in why_not_comparable(tracks()[1:], sources)
    assert "sources" in why_not_comparable(tracks(), ("vocals", "accompaniment"))
    assert "44100 Hz" in why_not_comparable(tracks(sample_rate=22_050), sources)
    cut = dict.fromkeys(read_published()["test_songs"], 6)
    assert why_not_comparable(tracks(lengths=cut), sources).startswith("50 of these songs have not the length")


def test_mistakes_get_one_line(evaluate, model, songs, tmp_path, monkeypatch):
    for arguments, message in (
        ([model, "--data", songs, "--split", "valid"], "has no song in its valid split"),
        ([songs, "--data", songs], "no SavedModel in"),
        ([model, "--data", songs, "--quick", "--compare"], "leave out --quick"),
        ([model, "--data", songs, "--workers", "0"], "--workers"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            main([*map(str, arguments), "-o", str(tmp_path / "none")])
        assert "\n" not in str(caught.value) and not (tmp_path / "none").exists()
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / "1" / "saved_model.pb").write_bytes(b"\x00damaged")
    with pytest.raises(UserError, match=r"'song 0': .*damaged.*\(1 more\); 0 of 2 songs are done"):
        main([str(damaged), "--data", str(songs), "-o", str(tmp_path / "none"), "--quick", "--workers", "1"])
    monkeypatch.setattr(bss_eval, "NEEDED_PACKAGES", ("museval", "no_such_package"))
    with pytest.raises(UserError, match="no_such_package must be installed"):
        evaluate()


def test_a_back_end_that_cannot_be_had_is_one_line(run, model, songs, tmp_path):
    song = songs / "test" / "song 0"
    for command, *flags in (
        ("sepnet.evaluate", "--data", songs, "--quick", "--workers", "1", "-o", tmp_path / "out"),
        ("sepnet.compare", "--song", song, "-o", tmp_path / "picture.png"),
    ):
        outcome = run(command, model, *flags, KERAS_BACKEND="torch")
        assert (outcome.status, outcome.stderr.count("\n")) == (2, 1)
        assert outcome.stderr.startswith("error: the back end of Keras")


def is_any_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_all_processes(model, tmp_path, write_song):
    """While museval, which knows no interruption, is at work in one of them, long after the other's song is done."""
    for name, num_samples in (("long", 1_000_000), ("short", 9000)):
        write_song(tmp_path / "songs" / "test" / name, GAINS, num_samples=num_samples)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sepnet.evaluate", str(model), "--data", str(tmp_path / "songs"), "-o", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list(out.glob("songs/ideal ratio mask/*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130 and stderr.splitlines() == ["interrupted"]
    while is_any_left(process.pid):
        time.sleep(0.02)
    # It was not waited for.
    assert {path.stem for path in out.glob("songs/*/*.json")} == {"short"}
    assert not (out / "figures.json").exists()
    assert not [path for path in out.rglob(".*") if path.is_file()]

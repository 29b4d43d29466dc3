"""Runs drawn together, and models on one song, through the command."""

import csv
import io
import json
import shutil

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.compare import main
from sepnet.comparison.song_pictures import draw_song
from sepnet.comparison.stretch import Comparison
from sepnet.config.config import Config
from sepnet.config.data import Data
from tests.page_reader import content, read_page

GAINS = {"flat": {"vocals": 0.5, "drums": 0.25}, "deep": {"vocals": 0.6, "drums": 0.4}}


@pytest.fixture
def make_run(tmp_path):
    def make(name, silence=0.007, val_mse=(0.005, 0.003)):
        folder = tmp_path / name
        folder.mkdir()
        figures = {"val_mse": silence, "val_si_sdr": -80.0}
        summary = {
            "family": "unet_1d",
            "depth": 3,
            "sample_rate": 44_100,
            "metrics": {"epoch": 2, "val_mse": min(val_mse), "val_si_sdr": 4.0},
            "baselines": {"silence": figures, "mixture/num_sources": {**figures, "val_mse": silence / 2}},
            "costs": {"parameters": 272_040, "training_seconds": 90.0},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("epoch", "val_mse"), *enumerate(val_mse, start=1)])
        return folder

    return make


def test_the_better_run_comes_first(run, make_run, tmp_path):
    worse, better = make_run("deep"), make_run("flat", val_mse=(0.004, 0.002))
    outcome = run("sepnet.compare", worse, better, "-o", tmp_path / "picture.png")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.index("flat") < outcome.stdout.index("deep") < outcome.stdout.index("silence")
    assert "0.00200" in outcome.stdout and "272,040" in outcome.stdout
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_say_nothing_about_each_other(run, make_run, tmp_path):
    outcome = run("sepnet.compare", make_run("one"), make_run("two", silence=0.008), "-o", tmp_path / "picture.png")
    assert outcome.status == 2 and "different segments" in outcome.stderr and len(outcome.stderr.splitlines()) == 1
    outcome = run("sepnet.compare", tmp_path, "-o", tmp_path / "picture.png")
    assert outcome.status == 2 and "no summary.json" in outcome.stderr
    assert not (tmp_path / "picture.png").exists()


@pytest.fixture(scope="module")
def models(gain_model, tmp_path_factory):
    """Two models whose stems are the mixture times a gain."""
    root = tmp_path_factory.mktemp("models")
    for name, gains in GAINS.items():
        shutil.copytree(gain_model(gains, sample_rate=8000, num_channels=1), root / name)
        contract = root / name / "1" / "assets.extra" / "sepnet.json"
        config = json.loads(Config(Data(sources=tuple(gains))).to_json())
        contract.write_text(json.dumps({**json.loads(contract.read_text()), "config": config}))
    return [str(root / name) for name in GAINS]


@pytest.fixture
def song(tmp_path, write_song):
    """A song in which both sources are heard in the third second alone."""
    folder = write_song(tmp_path / "songs" / "test" / "A & B", GAINS["flat"], num_samples=32_000, num_channels=1)
    for stem, heard in (("vocals", slice(16_000, None)), ("drums", slice(0, 24_000))):
        audio, rate = soundfile.read(folder / f"{stem}.wav")
        silenced = np.zeros_like(audio)
        silenced[heard] = audio[heard]
        soundfile.write(folder / f"{stem}.wav", silenced, rate, "PCM_16")
    (folder / "mixture.wav").unlink()
    return folder


def test_models_on_one_song(models, song, tmp_path, capsys):
    main([*models, "--song", str(song), "--seconds", "1", "-o", str(tmp_path / "song.png")])
    printed = capsys.readouterr().out
    stems = {name: soundfile.read(song / f"{name}.wav")[0][16_000:24_000] for name in GAINS["flat"]}
    assert "A & B, 2.0 to 3.0 s" in printed
    page = read_page(tmp_path / "song.html")
    rows = {row[0]: row[1:] for row in page.rows}
    answers = {**GAINS, "silence": dict.fromkeys(stems, 0), "mixture/num_sources": dict.fromkeys(stems, 0.5)}
    for name, gains in answers.items():
        errors = [np.mean((gains[stem] * sum(stems.values()) - true) ** 2) for stem, true in stems.items()]
        shown = [f"{error:.5f}" for error in (np.mean(errors), *errors)]
        assert rows[name] == shown and all(figure in printed for figure in shown)

    clips = {attributes["aria-label"]: attributes["src"] for attributes in page.named("audio")}
    kinds = ["true", "flat", "flat less true", "deep", "deep less true"]
    assert list(clips) == ["mixture, A & B", *(f"{kind}, {stem}" for stem in stems for kind in kinds)]
    heard, rate = soundfile.read(io.BytesIO(content(clips["flat, drums"], "audio/mpeg")))
    assert rate == 8000 and np.sqrt(np.mean(heard**2)) == pytest.approx(
        0.25 * np.sqrt(np.mean(sum(stems.values()) ** 2)), rel=0.1
    )
    assert len(page.named("img")) == 2
    height, width, _ = matplotlib.image.imread(tmp_path / "song.png").shape
    assert height > 800 and width > 1000


def test_what_is_drawn_is_true(tmp_path, monkeypatch):
    """The picture's axes hold the samples and errors that they should."""
    tone = 0.5 * np.sin(np.arange(8000))[:, None].astype(np.float32)
    sources = {"vocals": tone, "drums": np.zeros_like(tone)}
    estimates = {"half": {"vocals": tone / 2, "drums": tone / 4}}
    drawn = {}
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, *_, **__: drawn.update(axes=figure.axes))
    draw_song(tmp_path / "none.png", Comparison("song", 0.0, 8000, tone, sources, estimates))
    titled = {axes.get_title(loc="left"): axes for axes in drawn["axes"]}
    assert {"half\nMSE 0.03125", "half\nMSE 0.00781"} < set(titled)
    for title, peak in (("vocals, true", 0.5), ("half\nMSE 0.03125", 0.25), ("half\nless true", 0.125)):
        [filled] = titled[title].collections
        assert np.abs(filled.get_paths()[0].vertices[:, 1]).max() == pytest.approx(peak, rel=0.01)
    spectrograms = [axes.images[0].get_array() for axes in drawn["axes"] if axes.images]
    assert len(spectrograms) == 1 + 2 * 3
    assert spectrograms[1].max() - spectrograms[2].max() == pytest.approx(20 * np.log10(2), abs=0.1)
    assert len({axes.images[0].get_clim() for axes in drawn["axes"] if axes.images}) == 1


def test_a_model_may_have_the_name_of_a_baseline():
    tone = np.full((100, 1), 0.5, np.float32)
    sources = {"vocals": tone, "drums": np.zeros_like(tone)}
    rows = Comparison("song", 0.0, 8000, tone, sources, {"silence": sources}).error_rows()
    assert [row[:2] for row in rows[:2]] == [("silence", "0.00000"), ("silence", "0.12500")]


def test_a_song_by_its_name(models, song, tmp_path):
    arguments = [models[0], "--data", str(tmp_path / "songs"), "-o", str(tmp_path / "song.png")]
    main([*arguments, "--song", "A & B", "--start", "3.5"])
    assert "3.5 to 4.0 s" in (tmp_path / "song.html").read_text(encoding="utf-8")
    for flags, message in (
        (["--song", "C"], "no song of that name under .* which has 'A & B'"),
        (["--song", "A & B", "--start", "4"], "--start is 4 s, and 'A & B' ends after 4.0 s"),
        (["--song", "A & B", "--seconds", "0"], "--seconds is 0; expected seconds, more than 0"),
        (["--song", "A & B", "--start", "nan"], "--start is nan; expected seconds"),
        (["--song", "A & B", "--start", "-0.5"], "--start is -0.5; expected seconds, 0 or more and at most 86400"),
        (["--song", "A & B", "--seconds", "1e308"], "--seconds is 1e.308; expected seconds, more than 0 and at most"),
        (["--song", "A & B", "-o", "song.html"], "--output is song.html, and the picture is a PNG"),
        (["--song", "A & B", "-o", "song.svg"], "--output is song.svg, and the picture is a PNG"),
        (["--song", "A & B", "-o", "."], "--output is ., a folder; name the picture in it"),
        ([], "--data says what to draw of a song"),
    ):
        with pytest.raises(UserError, match=message):
            main([*arguments, *flags])
    (song / "drums.wav").unlink()
    with pytest.raises(UserError, match="lacks drums"):
        main([models[0], "--song", str(song)])

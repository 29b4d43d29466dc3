"""Models, runs and songs of any name, and the options by which evaluate and compare read songs."""

import json
import math
import os
import shutil

import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.compare import main as compare
from sepnet.evaluate import main as evaluate
from sepnet.export.contract import read_contract
from sepnet.export.saved_model import SavedModel
from sepnet.export.write import export_model
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, contract_of, small_network

NAMES = ["m [2]", "a*?{b}", os.fsdecode(b"caf\xe9"), "$x$ #1 %d: [b]", "two\nlines", "日" * 85]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a small model, with the config that says which stems its sources are."""
    network = small_network("unet_1d")
    contract = contract_of(network) | {"config": {"family": "unet_1d", "data": {"sources": list(SOURCES)}}}
    return export_model(network.model, tmp_path_factory.mktemp("models") / "model", contract).parent


@pytest.fixture
def songs(tmp_path, write_song):
    """A folder with test songs at the model's rate."""
    for number in range(2):
        write_song(tmp_path / "songs" / "test" / f"song {number}", SOURCES, sample_rate=SAMPLE_RATE, seed=number)
    return tmp_path / "songs"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_any_name_is_written_and_loaded(tmp_path, model, name):
    mixture = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 1000, 2)).astype(np.float32)
    expected = SavedModel(model)(mixture)
    shutil.copytree(model, tmp_path / name)
    for source, stem in SavedModel(tmp_path / name)(mixture).items():
        np.testing.assert_array_equal(stem, expected[source])
    version = export_model(small_network("unet_1d").model, tmp_path / "new" / name, read_contract(model / "1"))
    assert SavedModel(version)(mixture).keys() == expected.keys()


def test_a_song_may_be_named_by_its_folder_beside_data(tmp_path, model, songs, capsys):
    command = [str(model), "--data", str(songs), "--song", str(songs / "test" / "song 1")]
    compare([*command, "-o", str(tmp_path / "picture.png")])
    assert "song 1" in capsys.readouterr().out
    with pytest.raises(UserError, match="--skip-bad is for songs of --data, and .* is read as it is; leave it out"):
        compare([*command, "--skip-bad", "-o", str(tmp_path / "picture.png")])


def test_names_are_drawn_listed_and_linked_as_they_are(tmp_path, model, write_song, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    models = [tmp_path / "models" / name for name in NAMES[:4]]
    for folder in models:
        shutil.copytree(model, folder)
    name = os.fsdecode(b"A$AP # Ke$ha [bold] <b> \xff")
    song = write_song(tmp_path / name, SOURCES, sample_rate=SAMPLE_RATE)
    compare([*map(str, models), "--song", str(song), "-o", str(tmp_path / "picture.png")])
    printed = capsys.readouterr().out
    assert r"A$AP # Ke$ha [bold] <b> \udcff" in printed
    for shown in ("m [2]", "a*?{b}", r"caf\udce9", "$x$ #1 %d: [b]"):
        assert shown in printed
    page = (tmp_path / "picture.html").read_text(encoding="utf-8")
    assert r"A$AP # Ke$ha [bold] &lt;b&gt; \udcff" in page


def test_models_of_one_name_are_told_apart(tmp_path, model, write_song, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    song = write_song(tmp_path / "song", SOURCES, sample_rate=SAMPLE_RATE)
    for folder in ("one", "two"):
        shutil.copytree(model, tmp_path / folder / "model")
    monkeypatch.chdir(tmp_path)
    compare(["one/model", "two/model/", "--song", str(song), "-o", str(tmp_path / "picture.png")])
    printed = capsys.readouterr().out
    assert "one/model" in printed and "two/model" in printed


def write_run(folder, val_mse, silence):
    folder.mkdir(parents=True)
    figures = {"val_si_sdr": 1.0}
    summary = {
        "family": "unet_1d",
        "depth": 2,
        "sample_rate": SAMPLE_RATE,
        "metrics": {"val_mse": val_mse, **figures},
        "baselines": {"silence": {"val_mse": silence, **figures}},
        "costs": {"parameters": 10, "training_seconds": 1.0},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "history.csv").write_text(f"epoch,val_mse\n1,{val_mse}\n")
    return folder


def _damaged(summary):
    """A summary with one figure less, or one of the wrong kind."""
    for name in ("family", "depth", "sample_rate", "baselines", "metrics", "costs"):
        yield {key: value for key, value in summary.items() if key != name}
    yield from (summary | {"baselines": {}}, summary | {"sample_rate": "8000"}, summary | {"family": 1})


def test_runs_of_one_name_are_told_apart_also_where_all_is_silent(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / folder / "run $x$ [b]", 0.1, 0.0) for folder in ("one", "two")]
    compare([str(run.relative_to(tmp_path)) for run in runs])
    printed = capsys.readouterr().out
    assert all(f"{folder}/run $x$ [b]" in printed for folder in ("one", "two"))
    other = write_run(tmp_path / "other", 0.1, 0.2)
    with pytest.raises(UserError, match="judged on different segments"):
        compare([str(runs[0]), str(other)])
    with pytest.raises(UserError, match="other is given twice; leave one of them out"):
        compare([str(other), str(tmp_path / "one" / ".." / "other")])
    whole = json.loads((other / "summary.json").read_text())
    for damage in ("{", "[]", '{"metrics": 1}', "[" * 100_000, *map(json.dumps, _damaged(whole))):
        (other / "summary.json").write_text(damage)
        with pytest.raises(UserError, match="summary.json is damaged"):
            compare([str(other)])


def figures_of(output):
    return json.loads((output / "figures.json").read_text())["methods"]


def test_songs_of_two_rates_can_be_evaluated_at_one(tmp_path, model, songs, write_song, capsys):
    write_song(songs / "test" / "fast song", SOURCES, sample_rate=2 * SAMPLE_RATE)
    arguments = [str(model), "--data", str(songs), "--quick", "-o", str(tmp_path / "figures")]
    with pytest.raises(UserError, match="different sample rates .*; choose one with --sample-rate"):
        evaluate(arguments)
    evaluate([*arguments, "--sample-rate", str(SAMPLE_RATE), "--workers", "1"])
    assert "3 test songs" in capsys.readouterr().out
    with pytest.raises(UserError, match="different sample rates .*; choose one with --sample-rate"):
        compare([str(model), "--data", str(songs), "--song", "fast song", "-o", str(tmp_path / "picture.png")])
    compare(
        [str(model), "--data", str(songs), "--song", "fast song", "-o", str(tmp_path / "picture.png")]
        + ["--sample-rate", str(SAMPLE_RATE), "--seconds", "0.2"]
    )


def test_songs_that_lack_a_stem_can_be_left_out_or_their_stems_named(tmp_path, model, songs, capsys):
    for source in SOURCES[1:]:
        (songs / "test" / "song 1" / f"{source}.wav").rename(songs / "test" / "song 1" / f"my {source}.wav")
    arguments = [str(model), "--data", str(songs), "--quick", "-o", str(tmp_path / "figures")]
    with pytest.raises(UserError, match=f"'song 1' lacks {SOURCES[1]}.*--sources; or leave it out with --skip-bad"):
        evaluate(arguments)
    evaluate([*arguments, "--skip-bad"])
    assert "1 test songs" in capsys.readouterr().out
    renamed = ", ".join([SOURCES[0], *(f"{source}=my {source}" for source in SOURCES[1:])])
    evaluate([*arguments, "--skip-bad", "--sources", renamed, "--workers", "1"])
    assert "left out: song 'song 0'" in capsys.readouterr().out
    with pytest.raises(UserError, match="--sources names a, b, and the models give"):
        evaluate([*arguments, "--sources", "a,b"])
    assert all(math.isfinite(row["mse"]) for row in figures_of(tmp_path / "figures").values())


def test_long_names_have_figures(tmp_path, model, songs):
    name = "é" * 127
    (songs / "test" / "song 0").rename(songs / "test" / name)
    output = tmp_path / "figures"
    evaluate([str(model), "--data", str(songs), "--quick", "--workers", "1", "-o", str(output)])
    kept = {path.name for path in (output / "songs" / "model").iterdir()}
    assert len(kept) == 2 and "song 1.json" in kept
    manifest = json.loads((output / "manifest.json").read_text())
    assert set(manifest["songs"]) == {name, "song 1"}
    assert soundfile.info(songs / "test" / name / "mixture.wav").frames == 4000

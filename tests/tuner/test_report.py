"""The report of a search: what the command leaves and says, and whether the page stands by itself."""

import csv
import dataclasses
import io
import json
import re
import shutil

import matplotlib.image
import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.comparison.run_example import example_of_run
from sepnet.comparison.stretch import loudest_stretch
from sepnet.config.run_folder import Run
from sepnet.reports.pages import audio_uri
from sepnet.train import main as train
from tests.page_reader import content, read_page
from tests.tuner.synthetic import errors_of, write_search, write_trial, write_whole_search
from tuner.report import main
from tuner.reporting import pictures
from tuner.reporting.analysis import COSTS, analyse
from tuner.reporting.answer import answer_text, print_answer, records
from tuner.reporting.page import meter_text
from tuner.reporting.publish import write_report
from tuner.searching.records import NOT_FITTING, read_search


@pytest.fixture(scope="module")
def whole_search(tmp_path_factory):
    return write_whole_search(tmp_path_factory.mktemp("searches") / "<songs> & more")


def test_the_command_says_and_writes_the_answer(run, whole_search):
    outcome = run("tuner.report", whole_search, "--no-audio")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines()[-1] == f"report: {whole_search / 'report.html'}"
    said = " ".join(outcome.stdout.split())
    answer = analyse(read_search(whole_search))
    for text in answer_text(answer):
        assert text in said
    assert re.search(r"\n *stft 4 +0\.00227 +0\.00\d+–0\.00\d+ +0\.664 +best, front", outcome.stdout)
    assert re.search(r"\n *mixture/num_sources +0\.00500 ", outcome.stdout)
    assert said.count("failed: out of memory & gone") == said.count("not fitting: its plan of 91 GB exceeds") == 1
    assert max(map(len, outcome.stdout.splitlines())) <= 110

    page = read_page(whole_search / "report.html")
    for candidate in answer.candidates:
        assert [row[0] for row in page.rows].count(candidate.trial.label) == 2
    reasons = [row for row in page.rows if len(row) == 3]
    assert reasons[1:] == [
        ["waveform 9", "0017", "failed: out of memory & gone"],
        ["waveform 12", "0018", "not fitting: its plan of 91 GB exceeds the 80 GB that are free"],
        ["stft 7", "0019", "still running, 1 run done"],
    ]
    for image in page.named("img"):
        height, width, _ = matplotlib.image.imread(io.BytesIO(content(image["src"], "image/png"))).shape
        assert height > 300 and width > 600
    assert len(page.named("img")) == 5 and not page.named("audio")
    text = (whole_search / "report.html").read_text(encoding="utf-8")
    assert "Joules of the CPU are an estimate, not a measurement" in text
    assert "an 8-bit &lt;microprocessor&gt;" in text and "&lt;songs&gt; &amp; more" in text


def test_csv_and_json_hold_the_answer(whole_search):
    write_report(analyse(read_search(whole_search), "gflop"), audio=False)
    answer = analyse(read_search(whole_search), "gflop")
    written = json.loads((whole_search / "trials.json").read_text())
    with (whole_search / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == [trial["trial_id"] for trial in written["trials"]]
    assert (written["cost"], written["sentences"]) == ("gflop", answer_text(answer))
    assert (
        written["best"] == answer.best.trial.trial_id and written["near_optimal"] == answer.near_optimal.trial.trial_id
    )
    for candidate, row, trial in zip(answer.candidates, rows, written["trials"], strict=False):
        for name, value in {
            "val_mse": candidate.val_mse.value,
            "val_mse_drums": np.mean([run.record["metrics"]["val_mse_drums"] for run in candidate.trial.runs]),
            "val_mse_low": candidate.val_mse.low,
            "behind_best_high": candidate.behind.high,
            "gflop_per_second": candidate.cost,
        }.items():
            assert float(row[name]) == trial[name] == pytest.approx(value, rel=1e-12)
        assert row["is_best"] == str(trial["is_best"]) == str(candidate is answer.best)
    failed = next(row for row in rows if row["status"] == "failed")
    assert (failed["reason"], failed["val_mse"]) == ("out of memory & gone", "")
    assert next(trial for trial in written["trials"] if trial["status"] == "failed")["val_mse"] is None


def test_a_search_that_has_only_begun(run, tmp_path, capsys):
    folder = write_search(tmp_path / "search")
    read_page(write_report(analyse(read_search(folder))))
    write_trial(folder, "stft", 3, errors_of(0.003, num_seeds=1), status="RUNNING")
    # KerasTuner is about to write the next one.
    half = folder / "trial_0001"
    half.mkdir()
    page = read_page(write_report(analyse(read_search(folder))))
    assert ["stft 3", "0000", "still running, 1 run done"] in page.rows and not page.named("img")
    print_answer(analyse(read_search(folder), "joules"))
    assert "No trial is completed (1 running)" in capsys.readouterr().out
    write_trial(folder, "stft", 4, errors_of(0.002, num_seeds=1))
    assert len(read_page(write_report(analyse(read_search(folder)), audio=False)).named("img")) == 4
    write_trial(folder, "stft", 5, status="FAILED", message="Traceback (most recent call last):\nTypeError: never\n")
    assert read_search(folder).trials[-1].reason == "TypeError: never"
    (half / "trial.json").write_text('{"trial_id": "00')
    outcome = run("tuner.report", folder)
    assert outcome.status == 2 and "is damaged" in outcome.stderr and len(outcome.stderr.splitlines()) == 1


def test_a_folder_that_is_no_search(run, tmp_path):
    outcome = run("tuner.report", tmp_path)
    [line] = outcome.stderr.splitlines()
    assert outcome.status == 2 and line.startswith("error: ") and "holds no search.json" in line
    outcome = run("tuner.report", tmp_path, "--cost", "euros")
    assert outcome.status == 2 and "euros" in outcome.stderr and len(outcome.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def listened(tmp_path_factory):
    """A search of one tiny run on songs of noise, of which one source is heard late."""
    root = tmp_path_factory.mktemp("real")
    generator = np.random.default_rng(0)
    for split in ("train", "valid"):
        (root / "songs" / split / "A & B").mkdir(parents=True)
        for source, begin in (("speech", 0), ("noise", 8000)):
            samples = 0.2 * generator.uniform(-1, 1, (16_000, 1))
            samples[:begin] = 0
            soundfile.write(root / "songs" / split / "A & B" / f"{source}.wav", samples, 8000, "PCM_16")
    folder = write_search(root / "search")
    write_trial(folder, "waveform", 2, errors_of(0.003, num_seeds=1))
    flags = "--family unet_1d --depth 2 --base-filters 3 --epochs 1 --steps-per-epoch 1 --batch-size 2 --num-channels 1"
    flags += " --segment-seconds 0.25 --validation-segments 2 --validation-seconds 0.5 --sources speech,noise"
    into = ["--runs", str(root / "runs"), "--saved-models", str(root / "models"), "--name", "tiny"]
    train([*flags.split(), *into, "--data", str(root / "songs")])
    shutil.copytree(root / "runs" / "tiny", folder / "trial_0000" / "seed_0", dirs_exist_ok=True)
    return root


def test_the_page_plays_what_a_model_makes_of_a_song(listened):
    folder = listened / "search"
    page = read_page(write_report(analyse(read_search(folder))))
    clips = {attributes["aria-label"]: attributes["src"] for attributes in page.named("audio")}
    names = ["mixture", "speech, true", "speech, predicted", "noise, true", "noise, predicted"]
    assert list(clips) == [f"{name}, waveform 2" for name in names]
    for uri in clips.values():
        samples, sample_rate = soundfile.read(io.BytesIO(content(uri, "audio/mpeg")))
        assert sample_rate == 8000 and len(samples) == pytest.approx(16_000, abs=3000)
    assert len(page.named("img")) == 5 and "A & B" in page.named("img")[-1]["alt"]
    assert "Validation song A &amp; B, 2 s from 0 s on." in (folder / "report.html").read_text(encoding="utf-8")

    heard = example_of_run(Run(folder / "trial_0000" / "seed_0"), 0.5)
    assert heard.start_seconds >= 1 and heard.mixture.shape == (4000, 1)
    np.testing.assert_allclose(sum(heard.sources.values()), heard.mixture, atol=1e-6)
    # The SavedModel that training exported says the same.
    from sepnet.separation.separator import Separator

    stems = Separator(listened / "models" / "tiny")(heard.mixture, 8000)
    for name, estimate in heard.estimates.items():
        np.testing.assert_allclose(estimate, stems[name], atol=1e-5)


def test_what_cannot_be_heard_costs_nothing_else(listened, capsys):
    folder = listened / "search"
    (listened / "songs").rename(listened / "gone")
    page = read_page(write_report(analyse(read_search(folder))))
    (listened / "gone").rename(listened / "songs")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "No audio of waveform 2: no such folder" in text and len(page.named("img")) == 4
    assert capsys.readouterr().err.startswith("no audio of waveform 2: no such folder")
    with pytest.raises(UserError, match="config.json"):
        example_of_run(Run(listened), 1)


def test_the_loudest_stretch_has_all_sources():
    sources = np.zeros((2, 100, 1))
    sources[0, :50], sources[0, 50:], sources[1, 60:] = 0.9, 0.1, 0.1
    sources[1, 80:90] = 0.2
    assert loudest_stretch(sources, 10, 5) == 80
    assert loudest_stretch(sources, 100, 5) == 0
    # Both are never heard: the loudest of what there is.
    assert loudest_stretch(sources[:, :40], 10, 5) in range(0, 31, 5)


@pytest.mark.parametrize(("sample_rate", "media_type"), [(44_100, "audio/mpeg"), (7000, "audio/flac")])
def test_audio_that_mp3_does_not_know_is_flac(sample_rate, media_type):
    samples = 1.5 * np.sin(np.arange(sample_rate) / 20)[:, None].repeat(2, axis=1)
    heard, rate = soundfile.read(io.BytesIO(content(audio_uri(samples, sample_rate), media_type)))
    assert rate == sample_rate and heard.shape[1] == 2
    assert np.abs(heard).max() > 0.9


def test_the_memory_of_what_does_not_fit_is_kept_and_drawn(whole_search):
    search = read_search(whole_search)
    planned = {trial.label: trial.planned_bytes for trial in search.trials}
    assert (planned["waveform 12"], planned["waveform 9"]) == (91_000_000_000, None)
    assert planned["stft 4"] == int(4e8 * 1.7**4)
    [row] = [row for row in records(analyse(search)) if row["status"] == NOT_FITTING]
    assert (row["planned_training_bytes"], row["val_mse"]) == (91_000_000_000, None)

    def picture(trials):
        drawn = io.BytesIO()
        pictures.draw_memory_by_depth(drawn, analyse(dataclasses.replace(search, trials=trials)))
        return matplotlib.image.imread(io.BytesIO(drawn.getvalue()))

    # Drawn, and as the only point at its depth.
    with_it, without = picture(search.trials), picture(search.completed)
    assert with_it.shape == without.shape and np.abs(with_it - without).max() > 0.5


def test_wide_intervals_leave_the_picture_its_scale(whole_search):
    answer = analyse(read_search(whole_search))
    wide = [
        dataclasses.replace(one, val_mse=dataclasses.replace(one.val_mse, low=0.0, high=1.0))
        for one in answer.candidates
    ]

    def picture(answer):
        drawn = io.BytesIO()
        pictures.draw_mse_by_depth(drawn, answer)
        return matplotlib.image.imread(io.BytesIO(drawn.getvalue()))

    usual, cut = picture(answer), picture(dataclasses.replace(answer, candidates=tuple(wide)))
    # The bars differ; the numbers beside the axis do not.
    assert (usual != cut).any() and (usual[:, :80] == cut[:, :80]).all()


def test_gpus_that_lie_near_are_drawn():
    assert pictures.gpu_limits([0.5, 1]) == [8]
    assert pictures.gpu_limits([3, 21]) == [8, 12, 16, 24]
    assert pictures.gpu_limits([30, 120]) == [40, 80]
    assert pictures.gpu_limits([12, 12]) == [12]


def test_the_loss_is_the_mean_of_the_runs_that_go_on():
    assert pictures.mean_history([[4, 2, 1], [2, 2]]).tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("meter", "text"),
    [
        ({"cpu": "RAPL", "gpu": "NVML"}, "CPU are measured by RAPL, and those of the GPU are measured by NVML."),
        ({"cpu": "estimated from the load", "gpu": None}, "an estimate, not a measurement"),
        ({"cpu": None, "gpu": "NVML"}, "CPU are not counted"),
    ],
)
def test_the_page_says_what_joules_are_worth(meter, text):
    assert text in meter_text(meter)


def test_help_is_of_this_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "training-joules: energy to train" in " ".join(capsys.readouterr().out.split())


def test_nothing_is_divided_by_zero(tmp_path):
    """Songs that are silent, energy that nobody counts, and steps that take no time."""
    folder = write_search(tmp_path / "search")
    costs = dict.fromkeys(("separation_joules", "training_joules", "separation_seconds", "gflop_per_second"), 0.0)
    costs |= dict.fromkeys(("peak_bytes", "planned_training_bytes", "training_seconds", "parameters"), 0)
    for depth in (1, 2):
        write_trial(folder, "stft", depth, np.zeros((1, 3, 4)), costs=costs, silence=0.0)
    for cost in COSTS:
        page = read_page(write_report(analyse(read_search(folder), cost), audio=False))
        assert len(page.named("img")) == 5
    text = answer_text(analyse(read_search(folder)))[0]
    assert text.startswith("Best: stft 1, val_mse 0.00000, as silence and below mixture/num_sources. No model has")
    write_trial(folder, "stft", 3, np.full((1, 3, 4), 0.01), silence=0.0)
    write_report(analyse(read_search(folder)), audio=False)
    shutil.rmtree(folder / "trial_0000")
    shutil.rmtree(folder / "trial_0001")
    assert "0.01000, ABOVE silence and 3.0 dB ABOVE mixture" in answer_text(analyse(read_search(folder)))[0]


def test_errors_that_are_no_numbers_are_failures(tmp_path, capsys):
    folder = write_search(tmp_path / "search")
    write_trial(folder, "stft", 1, np.full((2, 3, 4), np.nan))
    write_trial(folder, "stft", 2, np.full((1, 3, 4), np.inf), status="FAILED")
    write_trial(folder, "stft", 3, status="FAILED")
    write_trial(folder, "stft", 4, status="FAILED", outcome={"status": "failed", "reason": ""})
    reasons = [trial.reason for trial in read_search(folder).trials]
    assert [trial.status for trial in read_search(folder).trials] == ["failed"] * 4
    assert reasons[0].startswith("seed 0: its val_mse is nan") and reasons[1].startswith("seed 0: its val_mse is inf")
    assert reasons[2] == reasons[3] == "no reason was kept; see log.txt of its runs"
    write_report(analyse(read_search(folder)))
    # JSON knows no such numbers.
    json.loads((folder / "trials.json").read_text(), parse_constant=pytest.fail)


def test_values_with_markup_are_shown_as_they_are(tmp_path, capsys):
    folder = write_search(tmp_path / "a [red] $x$ :100:")
    shown = "learning_rate=[bold]$a_{ :smile:"
    write_trial(folder, "stft", 1, errors_of(0.002), knobs={"learning_rate": shown.partition("=")[2]})
    reason = "a [b] $c\nnext\x1b[31m"
    write_trial(folder, "stft", 2, status="FAILED", outcome={"status": "failed", "reason": reason})
    page = read_page(write_report(analyse(read_search(folder)), audio=False))
    assert len(page.named("img")) == 4
    assert ["stft 2", "0001", r"failed: a [b] $c\nnext\x1b[31m"] in page.rows
    print_answer(analyse(read_search(folder), "joules"))
    said = "".join(capsys.readouterr().out.split())
    for text in ("a [red] $x$ :100:", shown, r"a [b] $c\nnext\x1b[31m"):
        assert "".join(text.split()) in said


@pytest.mark.parametrize("content", ["", "epoch\n1\n", "epoch,val_mse\n1,x\n", "epoch,val_mse\n1,nan\n", None])
def test_a_damaged_history_is_one_line(tmp_path, content):
    folder = write_search(tmp_path / "search")
    write_trial(folder, "stft", 1, errors_of(0.002))
    path = folder / "trial_0000" / "seed_1" / "history.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match="history.csv"):
        write_report(analyse(read_search(folder)), audio=False)


@pytest.mark.parametrize("silence", [2**70, -1.0, True, "0.008", None, float("nan")])
def test_figures_that_are_none_are_named(tmp_path, silence):
    folder = write_search(tmp_path / "search")
    for depth in (1, 2):
        write_trial(folder, "stft", depth, errors_of(0.002), silence=silence)
    with pytest.raises(UserError, match=r"record.json is damaged \(at baselines.silence.val_mse\)"):
        write_report(analyse(read_search(folder)), audio=False)

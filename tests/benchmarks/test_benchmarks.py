"""Benchmarks: their steps before, around and after what they measure."""

import subprocess
import sys

import pytest

from benchmarks import augment, data, peers, separate, train
from benchmarks.children import run_child
from benchmarks.peers import Peer
from pipelines.audio.reading import measure
from pipelines.errors import UserError
from pipelines.songs.layouts import find_songs, read_track


def test_an_environment_that_was_not_finished_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "RESULTS", tmp_path)
    monkeypatch.setattr(peers.venv, "create", lambda folder, **_: (folder / "bin").mkdir(parents=True))
    commands = []

    def run(command, **_):
        commands.append(command[1:3])
        if len(commands) == 1:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(peers.subprocess, "run", run)
    peer = Peer("some_program", ["package"])
    with pytest.raises(KeyboardInterrupt):
        peer.run()
    assert not list((tmp_path / "some-program").iterdir())
    for _ in range(2):
        peer.run("argument")
    program = ["-m", "benchmarks.some_program"]
    assert commands == [["-m", "pip"], ["-m", "pip"], program, program]


def test_a_benchmark_ends_with_the_status_of_what_fails_in_it(capfd):
    with pytest.raises(SystemExit) as caught:
        run_child([sys.executable, "-c", "import sys; print('error: it is told', file=sys.stderr); sys.exit(2)"])
    assert caught.value.code == 2 and capfd.readouterr().err == "error: it is told\n"


def test_spleeter_without_its_weights_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(UserError, match="--spleeter was given without --spleeter-weights"):
        separate.main(["--spleeter", "python"])


def test_a_command_is_over_when_it_ends_and_not_at_the_next_look(monkeypatch):
    monkeypatch.setattr(augment, "WATCH_SECONDS", 3600)
    watched = augment.watch(["pipelines.check", "--help"])
    assert watched["peak_bytes"] > 0


def test_a_reader_that_this_python_does_not_have_is_not_measured(write_song, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    for name, value in {"NUM_BATCHES": 2, "REPEATS": 1, "SEGMENT_SAMPLES": 1000}.items():
        monkeypatch.setattr(data, name, value)
    write_song(tmp_path / "songs" / "song")
    rates = data.reading_rates([read_track(song, data.SOURCES, measure) for song in find_songs(tmp_path / "songs")])
    assert [name for name in rates if name.startswith("chain")] == ["chain, portable"] and min(rates.values()) > 0
    assert "not measured: the tensorflow-io reader cannot be used" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_step_is_timed_in_every_way_and_its_operations_are_told_apart():
    case = train.Case("unet_1d", 1, 1, 2048, {"base_filters": 2}, tuple(train.WAYS))
    figure = train.measure(case, own_rate=1e9)
    assert all(train.shown(figure, way, "training") for way in train.WAYS)
    shares = train.profile(case)
    assert sum(shares.values()) == pytest.approx(1)
    # It has no spectrum.
    assert shares["convolutions"] > 0 == shares["Fourier transforms"]

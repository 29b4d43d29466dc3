"""The files of `python -m sepnet.separate` are known before the first song is read, and destroy nothing."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from pipelines.errors import UserError
from sepnet.separate import main as separate
from sepnet.separation.song_files import named_songs
from tests.sepnet.helpers import tone

LENGTH = 2000


@pytest.fixture
def place(tmp_path, identity, monkeypatch):
    """An empty folder to be in, and a function that separates there."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return separate([*map(str, arguments), "--model", str(identity)])

    return tmp_path, run


def write(path, level=1.0):
    """A song that is told from others by its level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        soundfile.write(file, level * tone(2, 44_100, LENGTH), 44_100, format="WAV")
    return path


def tree(folder):
    """All files below a folder, with their contents; links stay links."""
    return {
        path.relative_to(folder).as_posix(): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def names(folder):
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def refused(folder, run, arguments, message):
    """Runs a separation that has to be refused, in one line, before anything is changed."""
    before = tree(folder), sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=message) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)
    assert (tree(folder), sorted(folder.rglob("*"))) == before


SAME = "would be written to the same files"
INPUT = "would be replaced, and it is a song of this call"
OUTSIDE = "lies outside of"


@pytest.mark.parametrize(
    ("songs", "arguments", "message"),
    [
        (["t.wav", "u.wav"], ["t.wav", "u.wav", "--template", "{stem}"], f"t.wav and u.wav {SAME}"),
        (["t.wav", "u.wav"], ["t.wav", "u.wav", "--format", "stem.mp4", "--template", "out"], SAME),
        (["t.wav", "u.wav"], ["t.wav", "u.wav", "--template", "{stem}", "--skip-existing"], SAME),
        (["x/t.wav", "y/t.wav"], ["x/t.wav", "y/t.wav"], SAME),
        (["t.wav"], ["t.wav", "./t.wav"], SAME),
        (["x/t.wav"], ["x", "x/t.wav"], SAME),
        # A file and a folder at once.
        (["b.wav", "b/vocals.wav.flac"], [".", "-o", "out"], SAME),
        (["vocals.wav"], ["vocals.wav", "-o", "."], INPUT),
        (["rest.wav", "t.wav"], ["t.wav", "rest.wav", "-o", ".", "--template", "{stem}", "--stems", "rest"], SAME),
        (["x.stem.mp4"], ["x.stem.mp4", "--format", "stem.mp4", "-o", "."], INPUT),
        (["a.wav", "a/vocals.wav"], ["a.wav", "a/vocals.wav", "-o", ".", "--template", "{song}/{stem}"], INPUT),
        (["a/vocals.wav"], ["a/vocals.wav", "-o", "a", "--skip-existing"], INPUT),
        (["t.wav", "o/drums"], ["t.wav", "-o", "t.wav"], "cannot write t.wav"),
        (["t.wav"], ["t.wav", "-o", "t.wav/x"], "cannot write t.wav"),
        (["t.wav", "o/a"], ["t.wav", "-o", "o", "--template", "a/{stem}"], "a is no folder"),
        (["t.wav", "o/rest.wav/x"], ["t.wav", "-o", "o"], "rest.wav is a folder"),
        (["t.wav", "o/rest.wav/x"], ["t.wav", "-o", "o", "--skip-existing"], "rest.wav is a folder"),
    ],
)
def test_what_would_destroy_something_is_refused(place, songs, arguments, message):
    folder, run = place
    for song in songs:
        write(folder / song)
    refused(folder, run, arguments, message)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_song_is_known_by_whatever_name(place, link):
    folder, run = place
    write(folder / "t.wav")
    (folder / "out").mkdir()
    link(folder / "t.wav", folder / "out" / "vocals.wav")
    refused(folder, run, ["t.wav", "-o", "out"], INPUT)
    link(folder / "t.wav", folder / "again.wav")
    refused(folder, run, ["again.wav", "-o", "out"], INPUT)


def test_the_standard_input_is_known_by_its_name(place):
    folder, run = place
    write(folder / "vocals.wav")
    stdin = os.dup(0)
    try:
        with (folder / "vocals.wav").open("rb") as song:
            os.dup2(song.fileno(), 0)
            refused(folder, run, ["-", "-o", "."], f"{INPUT}, the standard input")
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)


@pytest.mark.parametrize("template", ["{song}", "x/{song}"])
def test_links_inside_of_the_output_folder_do_not_lead_out(place, template):
    folder, run = place
    write(folder / "t.wav")
    (folder / "elsewhere").mkdir()
    (folder / "out" / "x").mkdir(parents=True)
    for link in ("out/t", "out/x/t"):
        (folder / link).symlink_to(folder / "elsewhere")
    refused(folder, run, ["t.wav", "-o", "out", "--template", f"{template}/{{stem}}"], OUTSIDE)
    # The folder itself may be one.
    (folder / "link").symlink_to(folder / "elsewhere")
    run("t.wav", "-o", "link", "--template", f"{template}/{{stem}}")
    assert len(names(folder / "elsewhere")) == 2


def test_names_of_models_do_not_lead_out(tmp_path, gain_model):
    model = gain_model({"../x": 1.0, "/y": 1.0, "a/b": 1.0}, sample_rate=44_100)
    write(tmp_path / "t.wav")
    arguments = [tmp_path / "t.wav", "-o", tmp_path / "out", "--model", model]
    for stem in ("../x", "/y"):
        refused(tmp_path, lambda *given: separate([*map(str, given)]), [*arguments, "--stems", stem], OUTSIDE)
    separate([*map(str, arguments), "--stems", "a/b"])
    assert names(tmp_path / "out") == ["a/b.wav"]


def test_songs_that_the_file_system_keeps_apart_are_separated(place):
    folder, run = place
    different = ["A.wav", "a.wav", "\u00e9.wav", "e\u0301.wav"]
    for name in different:
        write(folder / name)
    if len(names(folder)) < 4:
        pytest.skip("this file system does not tell these names apart")
    run(*different, "-o", "out", "--stems", "vocals")
    assert len(names(folder / "out")) == 4


@pytest.mark.parametrize(
    "song",
    ["...wav", "..wav", ".wav", "....wav", "01. Intro", "a. b.mp3", "[b] {song} %d $x.wav", "line\nbreak\x1b[31m.wav"]
    + ["-dash.wav", "2001: x.wav", "caf\udce9.wav", "x" * 251 + ".wav", "日本" * 41 + "日.wav", "y" * 255],
)
def test_any_name_is_a_song(place, song, capsys):
    folder, run = place
    write(folder / "in" / song)
    write(folder / "in" / "other.wav")
    run(folder / "in" / song, folder / "in" / "other.wav", "-o", "out", "--stems", "vocals")
    known = song.endswith((".wav", ".mp3")) and song.strip(".") != "wav"
    assert sorted(names(folder / "out")) == sorted([f"{song[:-4] if known else song}/vocals.wav", "other/vocals.wav"])


def test_songs_whose_stems_have_no_name_are_refused_before_and_the_others_are_done(place, capsys):
    folder, run = place
    long = "x" * 251 + ".wav"
    write(folder / "in" / long)
    template = ["--template", "{song} ({stem})", "-o", "out"]
    refused(folder, run, [f"in/{long}", *template], "File name too long; give the song a shorter or plainer name, or")
    refused(folder, run, [f"in/{long}", "--format", "stem.mp4"], "File name too long; .*--template")
    write(folder / "in" / "other.wav")
    assert run("in", *template) == 2
    assert names(folder / "out") == ["other (rest).wav", "other (vocals).wav"]
    head, line = capsys.readouterr().err.splitlines()
    assert head.startswith("1 of 2 songs") and "File name too long" in line


def test_the_output_folder_is_no_song_of_those_above_it(place):
    folder, run = place
    write(folder / "in" / "t.wav")
    for flags in ([], [], ["--skip-existing"], ["--residual"]):
        run("in", "-o", "in/out", *flags)
    expected = {"t.wav", *(f"out/t/{stem}.wav" for stem in ("rest", "vocals", "residual"))}
    assert set(names(folder / "in")) == expected
    (folder / "link").symlink_to(folder / "in" / "out")
    (folder / "in" / "other link").symlink_to(folder / "in" / "out")
    run("in", "-o", "link")
    run(folder / "in", "-o", "in/../in/out")
    assert set(names(folder / "in")) == expected
    # What is named is taken.
    run("in/out/t/vocals.wav", "-o", "in/out", "--template", "named/{stem}")
    assert (folder / "in" / "out" / "named" / "rest.wav").exists()


def test_songs_that_are_skipped_have_files_of_their_own(place):
    folder, run = place
    for name in ("t.wav", "u.wav"):
        write(folder / name)
    run("t.wav", "-o", "out", "--template", "{stem}")
    # The stems that are there cannot be those of both.
    refused(folder, run, ["t.wav", "u.wav", "-o", "out", "--template", "{stem}", "--skip-existing"], SAME)
    template = ["--template", "{stem}", "--skip-existing", "--stems"]
    assert run("t.wav", "-o", "out", *template, "vocals") == 0
    (folder / "out" / "rest.wav").unlink()
    run("t.wav", "-o", "out", *template, "vocals,rest")
    assert names(folder / "out") == ["rest.wav", "vocals.wav"]


def test_stems_beside_their_songs_are_no_songs(place):
    folder, run = place
    write(folder / "t.wav")
    run(".", "-o", ".")
    first = names(folder)
    assert set(first) == {"t.wav", "t/rest.wav", "t/vocals.wav"}
    refused(folder, run, [".", "-o", "."], INPUT)
    assert run(".", "-o", ".", "--skip-existing") == 0
    write(folder / "u.wav")
    run(".", "-o", ".", "--skip-existing")
    assert set(names(folder)) == {*first, "u.wav", "u/rest.wav", "u/vocals.wav"}


def test_what_systems_leave_in_folders_is_no_song(place):
    folder, run = place
    for song in ("t.wav", "...Baby One More Time.wav", ".hidden/u.wav"):
        write(folder / "in" / song)
    for other in ("._t.wav", "__MACOSX/._t.wav", "__MACOSX/x/t.wav", ".AppleDouble/t.wav", ".DS_Store", "Thumbs.db"):
        (folder / "in" / other).parent.mkdir(exist_ok=True, parents=True)
        (folder / "in" / other).write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    write(folder / "in" / ".sepnet-working-12345678" / "vocals.wav")
    assert run("in", "-o", "out", "--stems", "vocals") == 0
    assert names(folder / "out") == ["...Baby One More Time/vocals.wav", ".hidden/u/vocals.wav", "t/vocals.wav"]
    (folder / "in" / "only").mkdir()
    (folder / "in" / "._t.wav").rename(folder / "in" / "only" / "._t.wav")
    with pytest.raises(UserError, match="holds no audio"):
        run("in/only")
    with pytest.raises(UserError, match="._t.wav"):
        run("in/only/._t.wav")


def test_songs_that_differ_in_their_suffix_alone_keep_all_of_it(tmp_path):
    for name in ("a.mp4", "a.stem.mp4", "b.stem.mp4"):
        (tmp_path / name).touch()
    assert [song.name for song in named_songs([str(tmp_path)])] == ["a.mp4", "a.stem.mp4", "b"]
    assert [song.name for song in named_songs([str(tmp_path / "b.stem.mp4"), "-"])] == ["b", "stdin"]


def test_linked_folders_are_walked_once(place):
    folder, run = place
    write(folder / "in" / "b" / "t.wav")
    write(folder / "elsewhere" / "u.wav")
    for link, target in (("a", "in/b"), ("b/loop", "in"), ("c", "elsewhere"), ("d", "elsewhere"), ("e", "nowhere")):
        (folder / "in" / link).symlink_to(folder / target)
    run("in", "-o", "out", "--stems", "vocals")
    assert names(folder / "out") == ["b/t/vocals.wav", "c/u/vocals.wav"]


def test_stems_take_their_places_together_or_not_at_all(place, monkeypatch):
    """A folder takes the place of a stem while the song is separated, which cannot be known before."""
    folder, run = place
    write(folder / "t.wav")
    run("t.wav", "-o", "o")
    (folder / "o" / "rest.wav").unlink()
    write(folder / "t.wav", 0.5)
    before = (folder / "o" / "vocals.wav").read_bytes()
    monkeypatch.setattr("sepnet.separate._note_rates", lambda *_: (folder / "o" / "rest.wav").mkdir())
    with pytest.raises(UserError, match="cannot write .*rest.wav: Is a directory"):
        run("t.wav", "-o", "o")
    assert (folder / "o" / "vocals.wav").read_bytes() == before
    assert sorted(path.name for path in (folder / "o").iterdir()) == ["rest.wav", "vocals.wav"]


def test_a_killed_process_leaves_whole_stems_alone(tmp_path, identity):
    """Killed again and again while it replaces the stems of many short songs, every one of them is old or new."""
    songs = [write(tmp_path / "in" / f"{index}.wav", level=0.5) for index in range(8)]
    separate([*map(str, songs), "--model", str(identity), "-o", str(tmp_path / "out")])
    old = tree(tmp_path / "out")
    for song in songs:
        write(song, level=1.0)
    command = [sys.executable, "-m", "sepnet.separate", *map(str, songs), "--model", str(identity)]
    with subprocess.Popen([*command, "-o", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    new = {path: data for path, data in tree(tmp_path / "out").items() if not path.startswith(".sepnet-")}
    assert set(new) == set(old)
    assert sum(new[path] != old[path] for path in old) >= 2
    for path in old:
        assert soundfile.info(tmp_path / "out" / path).frames == LENGTH
        samples, _ = soundfile.read(tmp_path / "out" / path)
        assert np.abs(samples).max() == pytest.approx(0.25 if new[path] == old[path] else 0.5, abs=1e-3)

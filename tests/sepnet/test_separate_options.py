"""Options of `python -m sepnet.separate` mean what they say, and its streams end quietly."""

import os
import pathlib
import subprocess
import sys

import pytest
import soundfile
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.separate import main as separate
from tests.conftest import REPOSITORY
from tests.sepnet.helpers import noise, tone

# JAX, where a test has imported it, sets how much TensorFlow says; a user's shell does not have it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


@pytest.fixture
def song(tmp_path, monkeypatch):
    """A short song in a folder to be in."""
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "t.wav", tone(2, 44_100, 2000), 44_100)
    return tmp_path / "t.wav"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def shell(folder, line, *arguments):
    """Runs a line of a shell, in which "$@" are the command and its arguments."""
    return subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "sepnet.separate", *map(str, arguments)],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("option", ["--model", "--server", "--token", "-o", "--stems", "--template", "--", "IN"])
def test_what_is_empty_is_refused(song, option, identity):
    model = [] if option == "--model" else ["--model", str(identity)]
    arguments = ["", *model] if option == "IN" else [str(song), *model, option, ""]
    with pytest.raises(UserError, match="an empty argument") as caught:
        separate(arguments)
    assert "\n" not in str(caught.value)
    assert names(pathlib.Path()) == ["t.wav"]


@pytest.mark.parametrize(
    "template",
    ["{stem:d}", "{stem!x}", "{stem!r}", "{stem.foo}", "{stem[0]}", "{0}", "{}", "{stem:{song}}", "{", "}", "{stem!}"]
    + ["{stem}/", "{stem}{artist}", " ", "out", "/x/{stem}", "a/../../{stem}"],
)
def test_templates_that_are_none_are_refused(song, template, identity):
    with pytest.raises(UserError, match="--template") as caught:
        separate([str(song), "--template", template, "--model", str(identity)])
    assert "\n" not in str(caught.value)
    assert names(pathlib.Path()) == ["t.wav"]


def test_one_file_for_all_stems_has_no_stem_in_its_name(song, identity):
    for template in ("{stem}", "{song} ({stem})"):
        with pytest.raises(UserError, match="one file takes all stems"):
            separate([str(song), "--template", template, "--format", "stem.mp4", "--model", str(identity)])


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        ("vocals,vocals", "vocals would be written twice"),
        ("vocals, rest ,vocals", "vocals would be written twice"),
        ("vocals,", "no stem ''; choose from vocals, rest"),
        (",", "no stem ''"),
        ("Vocals", "no stem 'Vocals'"),
    ],
)
def test_stems_are_each_named_once(song, stems, message, identity):
    for flags in ([], ["--format", "stem.mp4"], ["-o", "-"]):
        with pytest.raises(UserError, match=message):
            separate([str(song), "--stems", stems, "--model", str(identity), *flags])
    assert names(pathlib.Path()) == ["t.wav"]


def test_blanks_between_stems_are_none_of_their_names(song, identity):
    separate([str(song), "--stems", "rest , vocals", "--model", str(identity)])
    assert names(pathlib.Path("stems")) == ["rest.wav", "vocals.wav"]


def test_stems_called_as_what_is_made_of_them(song, gain_model):
    model = gain_model({"vocals": 1.0, "karaoke": 1.0, "mixture": 1.0}, sample_rate=44_100)
    for flags in (["--karaoke", "--stems", "karaoke"], ["--format", "stem.mp4"]):
        with pytest.raises(UserError, match="would be written twice"):
            separate([str(song), "--model", str(model), *flags])
    separate([str(song), "--model", str(model), "--karaoke"])
    assert names(pathlib.Path("stems")) == ["karaoke.wav"]


def test_karaoke_of_vocals_alone_is_nothing(song, gain_model):
    model = gain_model({"vocals": 1.0}, sample_rate=44_100)
    with pytest.raises(UserError, match="the model knows vocals; take --residual"):
        separate([str(song), "--model", str(model), "--karaoke"])


def test_the_home_folder_is_found_where_the_shell_leaves_it(song, identity, monkeypatch):
    monkeypatch.setenv("HOME", str(song.parent))
    song.with_name("model").symlink_to(identity)
    separate(["t.wav", "--stems", "vocals", "--model=~/model", "--output=~/stems"])
    separate(["t.wav", "--stems", "vocals", "--model=~/model", "-o", "./-"])
    assert {"stems/vocals.wav", "-/vocals.wav"} <= set(names(song.parent))


def test_all_behind_two_dashes_are_songs(song, identity):
    for name in ("-dash.wav", "--", "--model"):
        song.with_name(name).write_bytes(song.read_bytes())
    flags = ["--model", str(identity), "--stems", "vocals"]
    separate([*flags, "-o", "one", "--", "-dash.wav"])
    assert names(pathlib.Path("one")) == ["vocals.wav"]
    separate(["t.wav", *flags, "-o", "more", "--", "-dash.wav", "--model", "--"])
    assert names(pathlib.Path("more")) == sorted(f"{name}/vocals.wav" for name in ("t", "-dash", "--model", "--"))
    for arguments in ([], ["--"], [*flags, "--"]):
        with pytest.raises(UserError, match="the following arguments are required: IN"):
            separate(arguments)


def test_long_names_of_output_folders_are_refused(song, identity):
    with pytest.raises(UserError, match="cannot write x+: File name too long"):
        separate([str(song), "-o", "x" * 300, "--model", str(identity)])
    with pytest.raises(UserError, match="cannot read x+"):
        separate(["x" * 300, "--model", str(identity)])


def test_streams_that_are_closed_are_refused(song, identity):
    flags = ["--model", identity]
    for line, arguments, message in (
        ('exec "$@" <&-', ["-", *flags], b"the standard input is closed"),
        ('exec "$@" <&-', ["-", "t.wav", *flags, "-o", "out"], b"the standard input is closed"),
        ('exec "$@" >&-', ["t.wav", "--stems", "vocals", "-o", "-", *flags], b"the standard output is closed"),
        ('exec "$@" 1<> t.wav', ["t.wav", "--stems", "vocals", "-o", "-", *flags], b"it is a song of this call"),
    ):
        outcome = shell(song.parent, line, *arguments)
        assert outcome.returncode == 2, outcome
        [error] = outcome.stderr.splitlines()
        assert message in error
    assert names(song.parent) == ["t.wav"]
    assert soundfile.info(song).frames == 2000


def test_sound_is_not_written_onto_a_terminal(song, identity):
    pty = pytest.importorskip("pty")
    terminal, its_end = pty.openpty()
    try:
        arguments = ["t.wav", "--stems", "vocals", "-o", "-", "--model", identity]
        outcome = shell(song.parent, f'"$@" > {os.ttyname(its_end)}', *arguments)
    finally:
        os.close(terminal)
        os.close(its_end)
    [error] = outcome.stderr.splitlines()
    assert outcome.returncode == 2 and b"the standard output is a terminal" in error


def test_who_has_heard_enough_ends_it_quietly(song, identity):
    """Three seconds are more than a pipe holds."""
    soundfile.write("long.wav", noise(3 * 44_100, 2), 44_100)
    arguments = ["long.wav", "--stems", "vocals", "-o", "-", "--model", identity]
    outcome = shell(song.parent, '"$@" | head -c 9', *arguments)
    assert (outcome.returncode, outcome.stdout[:4], len(outcome.stdout), outcome.stderr) == (0, b"RIFF", 9, b"")


def test_a_full_disk_behind_the_standard_output_is_one_line(song, identity):
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    outcome = shell(song.parent, 'exec "$@" > /dev/full', "t.wav", "--stems", "vocals", "-o", "-", "--model", identity)
    [error] = outcome.stderr.splitlines()
    assert outcome.returncode == 2 and b"No space left on device" in error


def test_whatever_happens_to_one_song_the_others_are_done(song, identity, monkeypatch, capsys, tmp_path):
    """A reader that fails stands for what nobody foresaw, which cannot be made from outside."""
    from pipelines.audio import reading

    for name in ("a.wav", "b.wav"):
        song.with_name(name).write_bytes(song.read_bytes())
    opened = reading.open_audio

    def failing(source, *arguments, **keywords):
        if "a.wav" in str(source):
            raise KeyError("no\nsuch key")
        return opened(source, *arguments, **keywords)

    monkeypatch.setattr("sepnet.separate.open_audio", failing)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert separate([".", "-o", "out", "--stems", "vocals", "--model", str(identity)]) == 2
    assert names(pathlib.Path("out")) == ["b/vocals.wav", "t/vocals.wav"]
    head, line = capsys.readouterr().err.splitlines()
    assert head.startswith("2 of 3 songs") and "a.wav: KeyError" in line
    with pytest.raises(KeyError):
        separate(["a.wav", "-o", "out", "--model", str(identity)])


def test_too_little_memory_is_the_song_s_and_no_fault_of_sepnet(song, identity, monkeypatch):
    def constant(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory")

    monkeypatch.setattr(tf, "constant", constant)
    with pytest.raises(UserError, match=r"t\.wav: there is not enough memory for it; end other programs"):
        separate(["t.wav", "--model", str(identity)])


def test_a_song_of_no_samples_is_one_line(song, identity, capsys):
    soundfile.write("empty.wav", tone(2, 44_100, 0), 44_100)
    with pytest.raises(UserError, match="empty.wav holds no samples"):
        separate(["empty.wav", "--model", str(identity)])
    assert separate([".", "-o", "out", "--stems", "vocals", "--model", str(identity)]) == 2
    head, line = capsys.readouterr().err.splitlines()
    assert head.startswith("1 of 2 songs") and "empty.wav holds no samples" in line
    assert names(pathlib.Path()) == ["empty.wav", "out/t/vocals.wav", "t.wav"]


def test_names_that_a_terminal_would_obey_are_escaped(song, identity, capsys):
    name = "line\nbreak\x1b[31m[bold]\udce9.wav"
    song.with_name(name).write_bytes(song.read_bytes())
    song.with_name(f"bad {name}").write_text("no audio at all\n" * 100)
    separate([".", "-o", "out", "--stems", "vocals", "--model", str(identity)])
    printed = capsys.readouterr()
    shown = r"line\nbreak\x1b[31m[bold]\udce9"
    assert printed.out.splitlines() == [f"out/{shown}/vocals.wav", "out/t/vocals.wav"]
    assert len(printed.err.splitlines()) == 2 and f"bad {shown}.wav" in printed.err

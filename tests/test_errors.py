"""The end of every command: `pipelines.errors.run_command` in processes of its own, around a `main` of a few words."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from pipelines.errors import CommandParser, UserError, one_line, user_path
from tests.conftest import REPOSITORY


def ending(body: str, redirection: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Runs `main`, whose body is given, as a command of a shell."""
    program = f"import os, sys\nfrom pipelines.errors import UserError, run_command\ndef main(_): {body}\n"
    # POSIX shells alone close streams by `>&-`.
    return subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, f"{program}run_command(main)"],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def test_what_nobody_foresaw_is_one_line_and_a_file_with_the_traceback(tmp_path):
    outcome = ending("print('begun'); raise KeyError('no\\nsuch key')", TMPDIR=str(tmp_path))
    assert (outcome.returncode, outcome.stdout) == (70, b"begun\n")
    [line] = outcome.stderr.decode().splitlines()
    assert line.startswith("error: KeyError: ")
    [kept] = tmp_path.iterdir()
    assert str(kept) in line
    assert "Traceback (most recent call last)" in kept.read_text()
    assert "in main" in kept.read_text()


def test_tracebacks_are_shown_where_they_are_asked_for(tmp_path):
    outcome = ending("raise KeyError('no such key')", SEPNET_DEBUG="1", TMPDIR=str(tmp_path))
    assert outcome.returncode == 70
    assert outcome.stderr.startswith(b"Traceback (most recent call last)")
    assert outcome.stderr.splitlines()[-1].startswith(b"error: KeyError")
    outcome = ending("raise UserError('a mistake') from KeyError('its cause')", SEPNET_DEBUG="1")
    assert outcome.returncode == 2
    assert b"its cause" in outcome.stderr
    assert outcome.stderr.splitlines()[-1] == b"error: a mistake"


def test_a_traceback_that_cannot_be_kept_is_offered():
    outcome = ending("raise KeyError", TMPDIR="/proc/nowhere", TMP="/proc/nowhere", TEMP="/proc/nowhere")
    assert outcome.returncode == 70
    assert len(outcome.stderr.splitlines()) == 1


def test_too_little_memory_is_one_line():
    outcome = ending("bytearray(1 << 60)")
    assert (outcome.returncode, outcome.stdout) == (2, b"")
    assert re.fullmatch(rb"error: .*not enough memory.*\n", outcome.stderr)


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"\xfc\udce9"), ("utf-8", "ü".encode() + rb"\udce9")])
def test_names_that_a_stream_cannot_show_are_escaped(encoding, shown):
    outcome = ending(
        r"name = '\xfc\udce9'; print(name); print(name, file=sys.stderr); raise UserError(name)",
        PYTHONIOENCODING=encoding,
        PYTHONUTF8="0",
    )
    assert (outcome.returncode, outcome.stdout) == (2, shown + b"\n")
    assert outcome.stderr == shown + b"\nerror: " + shown + b"\n"


def test_names_that_lead_nowhere_are_one_line():
    for module, flags, said in (
        ("sepnet.plan", ["--models", "x" * 300], ": File name too long; give a shorter one"),
        ("sepnet.plan", ["--data", "~nobody-at-all/songs"], "~nobody-at-all/songs"),
    ):
        outcome = subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True)
        assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1 and said in outcome.stderr


def test_a_message_is_one_line_whatever_is_in_it():
    assert one_line("a\nb\x1b[31m\u2028c ü 日本") == r"a\nb\x1b[31m\u2028c ü 日本"


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_an_output_that_is_full_is_one_line():
    outcome = ending("print('text')", "> /dev/full")
    assert outcome.returncode == 2
    assert outcome.stderr == (b"error: the output: No space left on device; make room, or write elsewhere\n")


def test_an_output_that_nobody_reads_is_a_quiet_end():
    outcome = ending("print('x' * 1_000_000)", "| true")
    assert outcome.stderr == b""


def test_files_do_not_get_the_numbers_of_closed_streams(tmp_path):
    path = tmp_path / "file"
    opened = f"sys.exit(os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY))"
    assert ending(opened, "<&- >&- 2>&-").returncode > 2
    assert ending("print('text')", ">&-").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--data", ""], "after --data;"), (["--data="], "after --data;"), ([""], "argument;"), (["x", " "], "argument;")],
)
def test_an_empty_argument_is_none(arguments, named):
    parser = CommandParser(prog="program")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--data")
    with pytest.raises(UserError, match=f"an empty .*{named}"):
        parser.parse_args(arguments)
    with pytest.raises(UserError, match="an empty argument"):
        parser.parse_intermixed_args(arguments)
    assert parser.parse_args(["a=", "--data", "b="]).paths == ["a="]


def test_the_home_folder_is_meant_where_the_shell_does_not_say_so(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/songs") == pathlib.Path("/somewhere/songs")
    assert user_path("a~b/~") == pathlib.Path("a~b/~")
    parser = CommandParser()
    parser.add_argument("path", type=user_path)
    with pytest.raises(UserError, match="'~nobody-at-all/x'.*write the path in full"):
        parser.parse_args(["~nobody-at-all/x"])

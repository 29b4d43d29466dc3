"""The one exception that a user's mistake raises, and how every command reports it, and what nobody foresaw."""

import argparse
import errno
import importlib.util
import os
import pathlib
import re
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from typing import NoReturn

# Shows tracebacks on the standard error where it is set to anything but 0.
DEBUG_VARIABLE = "SEPNET_DEBUG"
# EX_SOFTWARE of BSD's sysexits.h, "an internal software error".
UNFORESEEN_STATUS = 70
# Errors of writing that a full, broken or protected disk gives, wherever that happens.
_STATES_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})
# Control characters, bytes of names that are no UTF-8, and Unicode's own line breaks.
_ESCAPED = frozenset({"Cc", "Cs", "Zl", "Zp"})


class UserError(Exception):
    """Something the user can mend: the message says what was received, what is expected and what to do.

    It is one line: the commands print it after `error: ` and exit with status 2.
    """


class RunError(UserError):
    """A `UserError` that is no single song's fault: it ends a run over many songs, which goes on when started again."""


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are a `UserError`, one line instead of the whole usage.

    An empty argument, as a shell makes it of a variable that is not set, is an error for every command: it would pass
    for an option that was not given, or for the folder in which the command runs. What begins like a negative number is
    a value.
    """

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        # By itself it takes "-5:20" for an option.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_known_args(self, args=None, namespace=None):
        """As `argparse`; raises a `UserError` for empty arguments, too."""
        args = sys.argv[1:] if args is None else list(args)
        for before, text in zip(["", *args], args, strict=False):
            name, _, value = text.rpartition("=") if text.startswith("--") else (before, "", text)
            if not value.strip():
                after = f" after {name}" if name.startswith("-") else ""
                self.error(f"an empty argument{after}; leave it out, or give it a value (is a variable not set?)")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the options")


def positive(text: str) -> int:
    """The type of a command line's whole numbers above 0, for `argparse`."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0; give 1 or more")
    return int(text)


def positive_up_to(largest: int) -> Callable[[str], int]:
    """The type of a command line's whole numbers from 1 to `largest`, for `argparse`."""

    def parse(text: str) -> int:
        if (number := positive(text)) > largest:
            raise argparse.ArgumentTypeError(f"{text!r} is above {largest}; give a smaller one")
        return number

    return parse


def user_path(text: str) -> pathlib.Path:
    """The type of a command line's paths, for `argparse`: `~` is the home folder also where the shell leaves it."""
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; write the path in full") from error


def folder_name(text: str) -> str:
    """The type of a command line's names of runs and models, for `argparse`: a folder has that name."""
    if text in (".", "..") or "/" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a folder; other options say where it lies")
    return text


def check_packages(names: Sequence[str], purpose: str, extra: str) -> None:
    """Raises a `UserError` unless packages are installed.

    Args:
        names: under which they are imported.
        purpose: what they are for.
        extra: of this project, which installs them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be installed for {purpose}: `pip install 'sepnet[{extra}]'`")


def one_line(text: object) -> str:
    """Returns a text, a file's name in it perhaps, with line breaks and what a terminal would obey escaped."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in str(text)
    )


def named(error: BaseException) -> str:
    """Returns the type and the text of an error as one line."""
    return one_line(f"{type(error).__name__}: {error}")


def unforeseen(error: BaseException) -> UserError:
    """Keeps the traceback of an error that nobody foresaw in a file, and returns the line that names the file.

    The traceback is shown as well where `SEPNET_DEBUG=1` is set.
    """
    lines = "".join(traceback.format_exception(error))
    if _debugging():
        print(lines, end="", file=sys.stderr)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sepnet-traceback-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(lines)
    except OSError:
        where = f"{DEBUG_VARIABLE}=1 shows where it comes from"
    else:
        where = f"{file.name} says where it comes from"
    return UserError(f"{named(error)} (this is a fault of sepnet; {where}: please report it)")


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs a command's `main(argv)` and exits.

    The status is what `main` returns, or 2 for a `UserError`, a name that is too long, and a lack of memory or disk,
    70 for an error that nobody foresaw, 130 for Ctrl-C, and 1 where the reader of the standard output went away. All
    but the last say so in one line on the standard error.
    """
    # TensorFlow greets on the standard error with a page about the machine. What it raises is still seen.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _prepare_standard_streams()
    try:
        status = main(None)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        if _debugging():
            traceback.print_exc()
        status = _report(error, 2)
    except MemoryError:
        status = _report("there is not enough memory for this; ask for less at a time, or end other programs", 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough.
        _discard_output()
        status = 1
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            status = _report(f"{error.filename}: {error.strerror}; give a shorter one", 2)
        elif error.errno not in _STATES_OF_THE_MACHINE:
            status = _report(unforeseen(error), UNFORESEEN_STATUS)
        else:
            status = _report(f"{error.filename or 'the output'}: {error.strerror}; make room, or write elsewhere", 2)
            _discard_output()
    except Exception as error:
        status = _report(unforeseen(error), UNFORESEEN_STATUS)
    sys.exit(status or 0)


def _debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")


def _report(error: object, status: int) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return status


def _prepare_standard_streams() -> None:
    """Lets every name be printed, and keeps the numbers of closed streams (`>&-`) from files that are opened later."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Drops what is left of the standard output, which Python would try to write once more at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

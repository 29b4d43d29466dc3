"""The one exception that a user's mistake raises, and how every command reports it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class UserError(Exception):
    """Something the user can mend: the message says what was received, what is expected and what to do.

    It is one line: the commands print it after `error: ` and exit with status 2.
    """


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are a `UserError`, one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the options")


def positive(text: str) -> int:
    """The type of a command line's whole numbers above 0, for `argparse`."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0; give 1 or more")
    return int(text)


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Runs a command's `main(argv)` and exits: 0, 2 for a `UserError`, 130 for Ctrl-C."""
    # TensorFlow greets on the standard error with a page about the machine. What it raises is still seen.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        status = main(None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status or 0)

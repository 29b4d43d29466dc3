"""`python -m sepnet.serve`: serves the models under saved_models/ by TensorFlow Serving's REST API, and a page."""

import argparse
import collections
import contextlib
import os
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, check_packages, positive, run_command
from sepnet.separation.remote_model import TOKEN_VARIABLE, bearer_token
from sepnet.serving.engine.options import MIB, ServeOptions, parse_version
from sepnet.serving.supervisor import supervise

# Packages that `[serve]` installs, by the names under which they are imported.
NEEDED_PACKAGES = ("fastapi", "uvicorn", "orjson", "pybase64", "prometheus_client")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Raises:
        UserError: an option cannot be used, or what `[serve]` installs is not there.
    """
    arguments = _parser().parse_args(argv)
    token = bearer_token(arguments.token)
    for (name, label), count in collections.Counter(key for key, _ in arguments.label).items():
        if count > 1:
            raise UserError(f"--label {name}/{label} was given {count} times; give it once, with one version")
    check_packages(NEEDED_PACKAGES, "the server", "serve")
    if not os.path.isdir(arguments.saved_models):
        raise UserError(
            f"no such folder: {arguments.saved_models}; name that of the models, or make one by sepnet.train"
        )
    return supervise(
        ServeOptions(
            saved_models=pathlib.Path(arguments.saved_models),
            host=arguments.host,
            port=arguments.port,
            token=token,
            labels=dict(arguments.label),
            num_versions=arguments.num_versions,
            max_batch=arguments.max_batch,
            max_song_bytes=arguments.max_song_mb * MIB,
            max_song_seconds=60 * arguments.max_song_minutes,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.serve", description=__doc__.partition(": ")[2], allow_abbrev=False)

    def add(flag: str, default: object, text: str, **options) -> None:
        parser.add_argument(flag, default=default, help=f"{text} [%(default)s]", **options)

    add("saved_models", str(ServeOptions.saved_models), "folder of models", nargs="?")
    add("--host", ServeOptions.host, "address to listen on; 0.0.0.0 for all")
    add("--port", ServeOptions.port, "port; 0 takes a free one", type=_port)
    parser.add_argument(
        "--token",
        help=f"bearer token that clients must send; better as {TOKEN_VARIABLE}, which no list of processes shows",
    )
    parser.add_argument(
        "--label", type=_label, action="append", default=[], metavar="NAME/LABEL=VERSION", help="a label for a version"
    )
    add("--num-versions", ServeOptions.num_versions, "newest versions that are served", type=positive)
    add("--max-batch", ServeOptions.max_batch, "requests that run together; 1: no batching", type=positive)
    add("--max-song-mb", ServeOptions.max_song_bytes // MIB, "largest file to separate", type=positive)
    add("--max-song-minutes", round(ServeOptions.max_song_seconds / 60), "longest song to separate", type=positive)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 0 to 65535")
    return int(text)


def _label(text: str) -> tuple[tuple[str, str], int]:
    model, _, version = text.rpartition("=")
    name, _, label = model.partition("/")
    with contextlib.suppress(ValueError):
        if name and label:
            return (name, label), parse_version(version)
    raise argparse.ArgumentTypeError(f"{text!r} is no label; expected NAME/LABEL=VERSION, as demo/stable=1")


if __name__ == "__main__":
    run_command(main)

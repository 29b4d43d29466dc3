"""`python -m sepnet.serve`: serves the models under saved_models/ by TensorFlow Serving's REST API, and a page."""

import argparse
import collections
import importlib.util
import os
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, positive, run_command
from sepnet.separation.remote_model import TOKEN_VARIABLE, bearer_token

# Of the number of a version, as in the addresses of TensorFlow Serving's API.
MOST_DIGITS = 18
NEEDED = ("fastapi", "uvicorn", "orjson", "pybase64", "prometheus_client")


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
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed; install them with `pip install 'sepnet[serve]'`")
    if not os.path.isdir(arguments.saved_models):
        raise UserError(
            f"no such folder: {arguments.saved_models}; name that of the models, or make one by sepnet.train"
        )
    from sepnet.serving.engine.options import MIB, ServeOptions
    from sepnet.serving.supervisor import supervise

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
    parser.add_argument("saved_models", nargs="?", default="saved_models", help="folder of models [saved_models]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all [127.0.0.1]")
    parser.add_argument("--port", type=_port, default=8501, help="port; 0 takes a free one [8501]")
    parser.add_argument(
        "--token",
        help=f"bearer token that clients must send; better as {TOKEN_VARIABLE}, which no list of processes shows",
    )
    parser.add_argument(
        "--label", type=_label, action="append", default=[], metavar="NAME/LABEL=VERSION", help="a label for a version"
    )
    parser.add_argument("--num-versions", type=positive, default=1, help="newest versions that are served [1]")
    parser.add_argument("--max-batch", type=positive, default=8, help="requests that run together; 1: no batching [8]")
    parser.add_argument("--max-song-mb", type=positive, default=512, help="largest file to separate [512]")
    parser.add_argument("--max-song-minutes", type=positive, default=30, help="longest song to separate [30]")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 0 to 65535")
    return int(text)


def _label(text: str) -> tuple[tuple[str, str], int]:
    model, _, version = text.rpartition("=")
    name, _, label = model.partition("/")
    if not (name and label and version.isascii() and version.isdigit() and len(version) <= MOST_DIGITS):
        raise argparse.ArgumentTypeError(f"{text!r} is no label; expected NAME/LABEL=VERSION, as demo/stable=1")
    return (name, label), int(version)


if __name__ == "__main__":
    run_command(main)

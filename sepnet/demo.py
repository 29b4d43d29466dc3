"""`python -m sepnet.demo`: trains on the demo songs, separates one that it has not heard, and draws it."""

import argparse
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, run_command, user_path
from sepnet.config.config import Config
from sepnet.config.training import Training

# With all that comes before and after, the demo takes less than six minutes on two cores.
MINUTES = 5.0
PICTURE_SECONDS = 10


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    arguments = _parser().parse_args(argv)
    import numpy as np

    from pipelines.audio import reading
    from pipelines.demo_songs.synthesis import demo_test_song
    from sepnet.reports.pictures import draw_separation
    from sepnet.separate import Outputs, separate_songs
    from sepnet.separation.song_files import SongFile
    from sepnet.train import free_run, train

    folder = arguments.folder
    with free_run(folder / "runs", "demo") as run:
        version = train(Config(training=Training(minutes=MINUTES)), run, pathlib.Path("saved_models", "demo"))

    from sepnet.separation.separator import Separator

    song = demo_test_song()
    mixture = song / "mixture.wav"
    print(f"\nseparating the test song {song.name!r}")
    separator = Separator(version)
    outputs = Outputs(tuple(separator.sources))
    for error in separate_songs(separator, [SongFile(mixture, song.name)], folder / song.name, outputs).values():
        raise error
    sample_rate = reading.probe(mixture).sample_rate
    first = slice(0, PICTURE_SECONDS * sample_rate)

    def read(path: pathlib.Path):
        return np.concatenate(list(reading.read_blocks(path)))[first]

    picture = folder / "separation.png"
    draw_separation(
        picture,
        read(mixture),
        {source: read(song / f"{source}.wav") for source in separator.sources},
        {source: read(folder / song.name / f"{source}.wav") for source in separator.sources},
        sample_rate,
    )
    print(f"listen:      {mixture}, then the stems above")
    print(f"look:        {run.loss_picture}, {picture}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.demo", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("folder", type=user_path, nargs="?", default="demo", help="folder for run and stems [demo]")
    return parser


if __name__ == "__main__":
    run_command(main)

"""`python -m benchmarks.originals.compare NAME WEIGHTS AUDIO`: an imported network beside the stems of its original.

WEIGHTS is the folder that one of the scripts beside this one left, or the file of weights in it. The stems are there
as `stems.npz` or under the name of the song. The song is separated as `sepnet.separate` does it; printed is by how much
the stems differ, full scale being 1, at the most and in the second in which they differ least.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from benchmarks.report import write_json
from pipelines.errors import CommandParser, run_command
from pipelines.tables import print_table

RESULTS = pathlib.Path("benchmarks/results/originals")


def main(argv=None) -> None:
    """Runs the comparison."""
    arguments = _parser().parse_args(argv)
    import soundfile

    from sepnet import pretrained
    from sepnet.separation.separator import Separator

    folder = arguments.weights if arguments.weights.is_dir() else arguments.weights.parent
    archive = folder / "weights.tar.gz"
    weights = archive if archive.exists() else arguments.weights
    with tempfile.TemporaryDirectory() as models:
        pretrained.main([arguments.name, "--weights", str(weights), "--saved-models", models])
        separator = Separator(pathlib.Path(models, arguments.name))
    mixture, rate = soundfile.read(arguments.audio, dtype="float32", always_2d=True)
    begin = time.perf_counter()
    stems = separator(mixture, rate)
    seconds = time.perf_counter() - begin
    stems_of_song = folder / f"{arguments.audio.stem}.npz"
    with np.load(stems_of_song if stems_of_song.exists() else folder / "stems.npz") as file:
        originals = {key.removeprefix("whole_"): file[key] for key in file}
    rows, figures = [], {}
    for source in originals:
        found = stems[source]
        expected = originals[source].reshape(found.shape)
        difference = found - expected
        # Segments of the original may know nothing of each other, and the stems differ around their seams.
        by_second = [float(np.abs(difference[place : place + rate]).max()) for place in range(0, len(mixture), rate)]
        figures[source] = {
            "largest": max(by_second),
            "smallest_of_a_second": min(by_second),
            "rms": float(np.sqrt(np.mean(difference**2))),
            "rms_of_stem": float(np.sqrt(np.mean(expected**2))),
        }
        rows.append((source, *(f"{value:.1e}" for value in figures[source].values())))
    print_table(("", "largest difference", "least of a second", "RMS", "RMS of the stem"), rows, title=arguments.name)
    print(f"separated {len(mixture) / rate:.1f} s in {seconds:.1f} s")
    write_json(
        RESULTS / f"{arguments.name}.json", {"sources": figures, "seconds": seconds, "length": len(mixture) / rate}
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m benchmarks.originals.compare", description=__doc__.partition(": ")[2])
    parser.add_argument("name", help="of the catalogue")
    parser.add_argument("weights", type=pathlib.Path, help="what the original's script left, or a file of it")
    parser.add_argument("audio", type=pathlib.Path, help="the song that it separated")
    return parser


if __name__ == "__main__":
    run_command(main)

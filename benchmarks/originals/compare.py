"""`python -m benchmarks.originals.compare NAME FOLDER AUDIO`: an imported network beside the stems of its original.

FOLDER is what one of the scripts beside this one left: weights in the published format, and `stems.npz` of the whole
song. The song is separated as `sepnet.separate` does it; printed is by how much the stems differ, full scale being 1,
at the most and in the second in which they differ least.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from benchmarks.report import write_json
from pipelines.errors import CommandParser, run_command
from sepnet.reports.tables import print_table

RESULTS = pathlib.Path("benchmarks/results/originals")


def main(argv=None) -> None:
    """Runs the comparison."""
    arguments = _parser().parse_args(argv)
    import soundfile

    from sepnet import pretrained
    from sepnet.separation.separator import Separator

    weights = arguments.folder / "weights.tar.gz"
    with tempfile.TemporaryDirectory() as models:
        place = weights if weights.exists() else arguments.folder
        pretrained.main([arguments.name, "--weights", str(place), "--saved-models", models])
        separator = Separator(pathlib.Path(models, arguments.name))
    mixture, rate = soundfile.read(arguments.audio, dtype="float32", always_2d=True)
    begin = time.perf_counter()
    stems = separator(mixture, rate)
    seconds = time.perf_counter() - begin
    with np.load(arguments.folder / "stems.npz") as file:
        originals = {key.removeprefix("whole_"): file[key] for key in file}
    rows, figures = [], {}
    for source in separator.sources:
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
    parser.add_argument("folder", type=pathlib.Path, help="what the original's script left")
    parser.add_argument("audio", type=pathlib.Path, help="the song that it separated")
    return parser


if __name__ == "__main__":
    run_command(main)

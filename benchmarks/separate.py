"""`python -m benchmarks.separate`: how fast songs are separated, in how much memory, and with what beside the model.

Every figure comes from a process of its own that separates a WAV of noise, from file to files, with an untrained
model. `--models` measures SavedModels instead, such as those of published weights; `--spleeter` puts Spleeter itself
beside them, run by the Python of an environment that has it (`benchmarks/originals/spleeter_reference.py`).
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks.children import run_child
from benchmarks.report import SHORT_WINDOW, write_json
from pipelines.errors import UserError, run_command
from pipelines.progress import progress_bar
from pipelines.tables import print_table

SAMPLE_RATE = 44_100
SHORT_MINUTES, LONG_MINUTES = 5, 60
SPEED_MINUTES = 2
RESULT = pathlib.Path("benchmarks/results/separate.json")
# A 2-D U-Net of 12 levels needs 4096 bins and, at this step, looks at three minutes at a time.
TALL = SHORT_WINDOW | {"frame_length": 8192, "frame_step": 2048}
SMALL_2D = {"filter_growth": "add", **SHORT_WINDOW}


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement: an untrained model, or the folder of one, and minutes of a song."""

    family: str
    depth: int | None
    minutes: int
    options: dict = dataclasses.field(default_factory=dict)
    folder: str = ""


CASES = [
    *(Case("unet_1d", depth, SPEED_MINUTES) for depth in (3, 6, 12)),
    *(Case("unet_2d", depth, SPEED_MINUTES, SMALL_2D) for depth in (3, 6)),
    Case("unet_2d", 12, SPEED_MINUTES, {"filter_growth": "add", **TALL}),
    *(Case("unet_1d", 3, minutes) for minutes in (SHORT_MINUTES, LONG_MINUTES)),
    *(Case("unet_2d", 3, minutes, SMALL_2D) for minutes in (SHORT_MINUTES, LONG_MINUTES)),
]


def main(argv=None) -> None:
    """Runs the benchmark; with `--case N`, one of its processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.separate", description=__doc__.partition(": ")[2])
    parser.add_argument("--models", nargs="+", type=pathlib.Path, default=[], help="SavedModels to measure instead")
    parser.add_argument("--spleeter", metavar="PYTHON", help="Python of an environment with Spleeter")
    parser.add_argument("--spleeter-weights", metavar="FOLDER", help="a checkpoint of it, of four stems")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.case is not None:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    if arguments.spleeter and not arguments.spleeter_weights:
        raise UserError("--spleeter was given without --spleeter-weights; name the folder of its checkpoint, too")
    models = [Case(folder.name, None, SPEED_MINUTES, folder=str(folder)) for folder in arguments.models]
    cases = [dataclasses.asdict(case) for case in models or CASES]
    commands = [[sys.executable, "-m", "benchmarks.separate", "--case", json.dumps(case)] for case in cases]
    if arguments.spleeter:
        cases.append(dataclasses.asdict(Case("Spleeter itself", None, SPEED_MINUTES)))
        script = "benchmarks/originals/spleeter_speed.py"
        commands.append([arguments.spleeter, script, arguments.spleeter_weights, str(60 * SPEED_MINUTES)])
    figures = []
    with progress_bar("measuring", total=len(cases), unit="songs") as advance:
        for case, command in zip(cases, commands, strict=True):
            answer = run_child(command, stdout=subprocess.PIPE, text=True)
            figures.append({**case, **json.loads(answer.stdout.splitlines()[-1])})
            advance(1)
    rows = [
        (
            f"{figure['family']} {figure['depth'] or ''}".strip(),
            f"{figure['minutes']} min",
            f"{figure['audio_seconds'] / figure['seconds']:.1f}",
            f"{1 - figure['model_seconds'] / figure['seconds']:.1%}" if "model_seconds" in figure else "",
            f"{figure['peak_bytes'] / 1e6:,.0f} MB",
            {True: "joined", False: "faded", None: "cut"}[figure.get("is_exact")],
        )
        for figure in figures
    ]
    headings = ("model", "song", "s of audio per s", "outside of the model", "peak memory", "blocks")
    print_table(headings, rows, title="separating, from WAV to WAVs", boxed=False)
    write_json(RESULT if not models else RESULT.with_name("separate_models.json"), {"cases": figures})


def measure(case: Case) -> dict:
    """Separates a song and says what it took."""
    from sepnet.export.saved_model import SavedModel
    from sepnet.separate import Outputs, separate_songs
    from sepnet.separation.separator import Separator
    from sepnet.separation.song_files import SongFile
    from sepnet.separation.timed import TimedModel
    from sepnet.training.measure import peak_bytes

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if not case.folder:
            export_in_process(case, folder / "model")
        model = TimedModel(SavedModel(case.folder or folder / "model"))
        separator = Separator(model)
        song = folder / "song.wav"
        write_noise(song, case.minutes * 60)
        # The first call builds what later ones use again.
        separator(np.zeros((SAMPLE_RATE, 2), np.float32), SAMPLE_RATE)
        model.seconds = 0.0
        begin = time.perf_counter()
        separate_songs(separator, [SongFile(song, "song")], folder / "stems", Outputs(tuple(separator.sources)))
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "model_seconds": model.seconds,
        "audio_seconds": case.minutes * 60,
        "peak_bytes": peak_bytes(),
        "is_exact": separator.is_exact,
    }


def export_in_process(case: Case, folder: pathlib.Path) -> None:
    """Exports an untrained model from a process of its own, whose memory does not count."""
    command = [sys.executable, "-c", EXPORT, json.dumps(dataclasses.asdict(case)), str(folder)]
    run_child(command, stdout=subprocess.DEVNULL)


EXPORT = f"""
import json, pathlib, sys
from sepnet.config.config import Config
from sepnet.models import family_class
from sepnet.export.contract import make_contract
from sepnet.export.write import export_model
case = json.loads(sys.argv[1])
config = Config(model=family_class(case["family"])()).changed({{"depth": case["depth"], **case["options"]}})
network = config.build({SAMPLE_RATE})
facts = {{"sources": list(config.data.parts), "sample_rate": {SAMPLE_RATE}, "num_channels": config.data.num_channels}}
places = {{"grid_samples": network.grid_samples, "context_samples": network.reach_samples}}
contract = make_contract(name="untrained", **places, **facts)
export_model(network.model, pathlib.Path(sys.argv[2]), contract)
"""


def write_noise(path: pathlib.Path, num_seconds: int) -> None:
    """Writes 16-bit stereo noise, a second at a time."""
    import soundfile

    second = np.random.default_rng(0).normal(0, 0.1, (SAMPLE_RATE, 2)).astype(np.float32)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, "PCM_16") as file:
        for _ in range(num_seconds):
            file.write(second)


if __name__ == "__main__":
    run_command(main)

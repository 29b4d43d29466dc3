"""A newcomer's additions, each one file and one line of a registry, and the same commands know them."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
FILES = {
    "sepnet/models/toy_family.py": """
import dataclasses
from sepnet.models import BODIES
from sepnet.models.unet import Unet
from sepnet.options.fields import Section, chosen, option

@dataclasses.dataclass(frozen=True)
class ToyFamily(Unet):
    loudness: float = option(1.0, "a factor of all estimates")
    body: Section = chosen(BODIES["unet_1d"], "toy_body", "between front and head")

    def largest_depth(self, num_samples, sample_rate):
        return max(num_samples, 1).bit_length() - 1

    def build(self, *, sources, num_channels, sample_rate):
        from sepnet.models.network import Branch, finish
        from sepnet.models.layers.magnitudes import Scale

        def run(mixture):
            num_outputs = len(sources) * num_channels
            features = self.body.apply(mixture, self.level_filters, num_outputs, recompute=self.recompute)
            return Scale(self.loudness)(features)

        branch = Branch(run, self.body.grid(self.depth))
        return finish([branch, branch], sources=sources, num_channels=num_channels, name="toy")
""",
    "sepnet/models/bodies/toy_body.py": """
import dataclasses
from sepnet.models.bodies.body import Body
from sepnet.options.fields import option

@dataclasses.dataclass(frozen=True)
class ToyBody(Body):
    toy_width: int = option(3, "kernel of the only convolution", at_least=1)

    def apply(self, features, filters, num_outputs, *, recompute):
        import keras
        from sepnet.models.layers.toy_layer import Halve
        return keras.layers.Conv1D(num_outputs, self.toy_width, padding="same")(Halve()(features))
""",
    "sepnet/models/layers/toy_layer.py": '''
import keras
from sepnet.models.layers.plain import PlainLayer

@keras.saving.register_keras_serializable(package="toy")
class Halve(PlainLayer):
    """Halves values, and would see 5 samples more on both sides."""

    def call(self, inputs):
        return inputs / 2

    def compute_output_shape(self, input_shape):
        return input_shape

    def reach(self, first, last, inputs, outputs):
        return [(first - 5, last + 5)]

    def flops(self, inputs, outputs):
        return 7 * outputs[0].size
''',
    "sepnet/training/toy_loss.py": """
from keras import ops

def toy_loss(sources, estimates):
    return ops.mean(ops.abs(estimates - sources), axis=(0, 1, 3)) * 0 + 0.125
""",
    "sepnet/training/toy_steps.py": """
import keras

class Still(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        pass
""",
    "pipelines/batches/toy_fade.py": """
from pipelines.batches.stem_changes import augmentation

@augmentation(default=0.0, help="share of stems that is taken away", at_least=0.0, at_most=1.0)
def toy_fade(stems, share, seeds):
    return stems * (1 - share)
""",
    "pipelines/songs/toy_layout.py": '''
from pipelines.songs.layouts import Song

class StemFolders(Song):
    """A song of which every stem lies in a folder of that stem: `vocals/NAME.wav`, `drums/NAME.wav`."""

    @classmethod
    def find(cls, entries, split):
        vocals = [file for folder in entries if folder.name == "vocals" for file in folder.glob("*.wav")]
        return (cls(file.stem, split, file.parents[1] / file.stem) for file in vocals)

    def entries(self):
        return [file.parent for file in self.files().values()]

    def files(self):
        return {file.parent.name: file for file in self.path.parent.glob(f"*/{self.name}.wav")}
''',
}
LINES = {
    "sepnet/models/__init__.py": [
        ('    "unet_2d": "sepnet', '    "toy": "sepnet.models.toy_family:ToyFamily",\n'),
        ('    "unet_1d": {"blocks"', ""),
    ],
    "sepnet/config/training.py": [
        ('    "mse": "sepnet', '    "toy_loss": "sepnet.training.toy_loss:toy_loss",\n'),
        (
            '    "adamw": Opt',
            '    "still": Optimizer("sepnet.training.toy_steps:Still", 1.0, num_moments=9),\n',
        ),
    ],
    "pipelines/batches/__init__.py": [("}", '    "toy_fade": "pipelines.batches.toy_fade:toy_fade",\n')],
    "pipelines/songs/__init__.py": [
        ('    "song_folders"', '    "stem_folders": "pipelines.songs.toy_layout:StemFolders",\n')
    ],
}
SIZES = ["--segment-seconds", "0.2", "--validation-segments", "1", "--validation-seconds", "0.5"]
SIZES += ["--batch-size", "2", "--steps-per-epoch", "2"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A copy of the packages with the files and lines."""
    folder = tmp_path_factory.mktemp("packages")
    for package in ("pipelines", "sepnet", "tuner"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name, lines in LINES.items():
        text = (folder / name).read_text()
        for before, line in lines:
            assert text.count(before) == 1
            text = text.replace(before, line + before)
        text = text.replace('{"blocks": "sepnet.models.bodies.blocks:Blocks1D"}', BODIES_LINE)
        (folder / name).write_text(text)
    return folder


BODIES_LINE = '{"blocks": "sepnet.models.bodies.blocks:Blocks1D", "toy_body": "sepnet.models.bodies.toy_body:ToyBody"}'


def run(packages, *arguments, status: int = 0) -> str:
    """Runs a command and returns what it prints, on the standard error where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(packages), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", *map(str, arguments)]
    finished = subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True)
    assert finished.returncode == status, finished.stderr
    return finished.stderr if status else finished.stdout


def test_help_lists_what_was_added(packages):
    text = " ".join(run(packages, "sepnet.train", "--help").split())
    assert all(name in text for name in ("toy", "toy_body", "--toy-width", "--loudness", "toy_loss", "still"))
    assert "--toy-fade float share of stems that is taken away [0.0]" in text


def test_plan_asks_the_layers(packages):
    flags = ["--family", "toy", "--depths", "2", "--segment-seconds", "1", "--sample-rate", "8000", "--device", "gpu"]
    [row], [still] = (
        json.loads(run(packages, "sepnet.plan", "--json", *flags, "--optimizer", optimizer))["depths"]
        for optimizer in ("adamw", "still")
    )
    # Five samples of the toy layer and one of the convolution on both sides.
    assert row["receptive_field_samples"] == 2 * (5 + 1) + 1
    # Two branches, stereo: the layer's 7, and a convolution to 4 stems with a bias.
    assert still["training_bytes"] > row["training_bytes"]
    assert row["flops_per_second"] == 8000 * 2 * (2 * 7 + 8 * (2 * 3 * 2 + 1))


@pytest.mark.slow
def test_a_song_goes_all_the_way(packages, songs):
    flags = ["--name", "toy", "--family", "toy", "--depth", "2", "--loss", "toy_loss", "--data", songs]
    run(packages, "sepnet.train", *flags, *SIZES, "--epochs", "2", "--optimizer", "still")
    with open(packages / "runs/toy/history.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["loss"] == second["loss"] == "0.125"
    assert first["val_mse"] == second["val_mse"]
    run(packages, "sepnet.export_run", "runs/toy", "--to", "again")
    song = next(iter(sorted(songs.rglob("mixture.wav"))))
    run(packages, "sepnet.separate", song, "--model", "again", "-o", "stems")
    assert len(list((packages / "stems").rglob("*.wav"))) == 4
    search = ["--families", "toy", "--depths", "1-2", "--budget", "1epochs", "--name", "toys", "--no-audio"]
    run(packages, "tuner.search", *search, "--data", songs, *SIZES)
    assert (packages / "searches/toys/report.html").exists()


@pytest.fixture
def stem_folders(songs, tmp_path):
    """The songs in the toy layout."""
    for file in songs.rglob("*.wav"):
        copy = tmp_path / "stem folders" / file.parents[1].name / file.stem / f"{file.parent.name}.wav"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return tmp_path / "stem folders"


def losses(packages, name) -> list[float]:
    with (packages / "runs" / name / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_layout_is_read_and_an_augmentation_changes_the_stems(packages, stem_folders):
    assert "2 songs, nothing wrong" in run(packages, "pipelines.check", stem_folders)
    flags = ["--name", "faded", "--family", "toy", "--depth", "1", "--data", stem_folders, *SIZES, "--epochs", "1"]
    assert "--toy-fade is 2.0; it must be at most 1" in run(
        packages, "sepnet.train", *flags, "--toy-fade", "2", status=2
    )
    run(packages, "sepnet.train", *flags, "--toy-fade", "1")
    # Nothing is heard, and a convolution that has learned nothing yet adds nothing.
    assert losses(packages, "faded") == [0.0]

    path = packages / "runs/faded/config.json"
    config = json.loads(path.read_text())
    assert config["training"]["toy_fade"] == 1.0
    config["training"]["epochs"] = 2
    path.write_text(json.dumps(config))
    run(packages, "sepnet.train", "--resume", "runs/faded")
    assert losses(packages, "faded") == [0.0, 0.0]


def test_songs_of_a_new_layout_are_converted_where_they_must_be(packages, stem_folders):
    for _ in range(2):
        printed = run(packages, "pipelines.prepare", stem_folders, "prepared")
    assert printed.startswith("all 2 songs are in prepared already")
    # A stem that has changed is seen, whichever it is.
    for number, stem in enumerate(sorted((stem_folders / "train").iterdir())):
        os.utime(stem / "song 0.wav", ns=(number, number))
        assert "1 song" in run(packages, "pipelines.prepare", stem_folders, "prepared")

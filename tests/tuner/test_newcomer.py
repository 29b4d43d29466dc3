"""A newcomer's additions, each one file and one line of a registry, and the same commands know them."""

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

    def largest_depth(self, num_samples):
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
}
LINES = {
    "sepnet/models/__init__.py": [
        ('    "unet_2d": "sepnet', '    "toy": "sepnet.models.toy_family:ToyFamily",\n'),
        ('    "unet_1d": {"blocks"', ""),
    ],
    "sepnet/config/training.py": [('    "mse": "sepnet', '    "toy_loss": "sepnet.training.toy_loss:toy_loss",\n')],
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


def run(packages, *arguments) -> str:
    environment = {**os.environ, "PYTHONPATH": str(packages), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", *map(str, arguments)]
    finished = subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_help_lists_what_was_added(packages):
    text = " ".join(run(packages, "sepnet.train", "--help").split())
    assert all(name in text for name in ("toy", "toy_body", "--toy-width", "--loudness", "toy_loss"))


def test_plan_asks_the_layers(packages):
    flags = ["--family", "toy", "--depths", "2", "--segment-seconds", "1", "--sample-rate", "8000", "--device", "gpu"]
    [row] = json.loads(run(packages, "sepnet.plan", "--json", *flags))["depths"]
    # Five samples of the toy layer and one of the convolution on both sides.
    assert row["receptive_field_samples"] == 2 * (5 + 1) + 1
    # Two branches, stereo: the layer's 7, and a convolution to 4 stems with a bias.
    assert row["flops_per_second"] == 8000 * 2 * (2 * 7 + 8 * (2 * 3 * 2 + 1))


def test_a_song_goes_all_the_way(packages, songs):
    flags = ["--name", "toy", "--family", "toy", "--depth", "2", "--loss", "toy_loss", "--data", songs]
    run(packages, "sepnet.train", *flags, *SIZES, "--epochs", "1")
    history = (packages / "runs/toy/history.csv").read_text()
    assert ",0.125," in history
    run(packages, "sepnet.export_run", "runs/toy", "--to", "again")
    song = next(iter(sorted(songs.rglob("mixture.wav"))))
    run(packages, "sepnet.separate", song, "--model", "again", "-o", "stems")
    assert len(list((packages / "stems").rglob("*.wav"))) == 4
    search = ["--families", "toy", "--depths", "1-2", "--budget", "1epochs", "--name", "toys", "--no-audio"]
    run(packages, "tuner.search", *search, "--data", songs, *SIZES)
    assert (packages / "searches/toys/report.html").exists()

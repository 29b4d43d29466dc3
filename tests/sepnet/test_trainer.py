"""Logs of training against NumPy on the same WAV files, and what a step does."""

import keras
import numpy as np
import pytest
import soundfile

from pipelines.audio.reading import measure
from pipelines.batches.augmentation import make_augmentations
from pipelines.batches.dataset import validation_batches
from pipelines.songs.layouts import find_songs, read_track
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.models import family_class
from sepnet.models.network import Network
from sepnet.training.fit import measure_baselines
from sepnet.training.trainer import Trainer
from tests.sepnet.helpers import SOURCES, noise, small_network, stacked

SEGMENT_SAMPLES = 700
NUM_SEGMENTS = 5


@pytest.fixture(scope="module")
def track(tmp_path_factory):
    """A song of five segments; one stem is silent in two of them, and the mixture is not the sum of the stems."""
    folder = tmp_path_factory.mktemp("songs") / "song"
    folder.mkdir()
    stems = {source: noise(NUM_SEGMENTS * SEGMENT_SAMPLES, 2, seed=seed) for seed, source in enumerate(SOURCES)}
    stems[SOURCES[0]][: 2 * SEGMENT_SAMPLES] = 0
    for name, samples in {**stems, "mixture": 0.5 * sum(stems.values()) + 0.1}.items():
        soundfile.write(folder / f"{name}.wav", samples, 8000, "PCM_16")
    [song] = find_songs(folder.parent)
    return read_track(song, SOURCES, measure)


@pytest.fixture(scope="module")
def truth(track):
    """The segments as soundfile reads them: sources `[segments, num_samples, num_sources, 2]` and the mixture."""

    def read(stem):
        samples, _ = soundfile.read(track.files[stem], dtype="float32")
        return samples.reshape(NUM_SEGMENTS, SEGMENT_SAMPLES, 2)

    return np.stack([read(source) for source in SOURCES], axis=2), read("mixture")


@pytest.fixture
def batches(track):
    """Batches of two, two and one."""
    return validation_batches(
        [track],
        stems=SOURCES,
        segment_samples=SEGMENT_SAMPLES,
        num_segments=NUM_SEGMENTS,
        num_channels=2,
        batch_size=2,
    )


def echo():
    """A network that gives the mixture back for every source."""
    mixture = keras.Input((None, 2), name="mixture")
    model = keras.Model(mixture, {source: keras.layers.Identity()(mixture) for source in SOURCES})
    return Network(model, grid_samples=1, reach_samples=0, core=model)


def mean_squared_errors(sources, estimates):
    """`mse` and `mse_<source>`, in float64."""
    errors = np.square(sources.astype(np.float64) - estimates)
    return {"mse": errors.mean()} | {f"mse_{name}": errors[:, :, index].mean() for index, name in enumerate(SOURCES)}


@pytest.mark.parametrize("family", ["unet_1d", "unet_2d"])
def test_evaluate_gives_the_mean_over_all_segments(family, batches, truth):
    sources, mixture = truth
    network = small_network(family)
    # What happens in training must not happen here.
    louder = make_augmentations(
        remix=True, random_gain_db=20.0, channel_swap=True, polarity=True, speed_semitones=3.0, seed=0
    )
    trainer = Trainer(network, SOURCES, louder)
    trainer.compile(jit_compile=False)
    figures = trainer.evaluate(batches, verbose=0, return_dict=True)
    expected = mean_squared_errors(sources, stacked(network.model(mixture)))
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_si_sdr_is_the_mean_over_stems_that_are_not_silent(batches, truth):
    sources, mixture = truth
    trainer = Trainer(echo(), SOURCES)
    trainer.compile(jit_compile=False)
    ratios = []
    for row in range(NUM_SEGMENTS):
        for index in range(len(SOURCES)):
            source, estimate = (
                sources[row, :, index].ravel().astype(np.float64),
                mixture[row].ravel().astype(np.float64),
            )
            if source.any():
                target = source * (source @ estimate) / (source @ source)
                ratios.append(10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2)))
    assert len(ratios) == NUM_SEGMENTS * len(SOURCES) - 2
    figures = trainer.evaluate(batches, verbose=0, return_dict=True)
    assert figures["si_sdr"] == pytest.approx(np.mean(ratios), abs=1e-3)


def test_baselines_need_no_model(batches, truth):
    sources, mixture = truth
    share = np.repeat(mixture[:, :, None] / len(SOURCES), len(SOURCES), axis=2)
    baselines = measure_baselines(Config(Data(sources=SOURCES)), batches)
    for name, estimates in {"silence": np.zeros_like(sources), "mixture/num_sources": share}.items():
        expected = {f"val_{key}": value for key, value in mean_squared_errors(sources, estimates).items()}
        assert {key: baselines[name][key] for key in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", ["unet_1d", "unet_2d"])
def test_the_loss_of_a_repeated_batch_falls(family, truth):
    keras.utils.set_random_seed(0)
    sources = (truth[0] * 32768).astype(np.int16).transpose(0, 2, 1, 3)
    trainer = Trainer(small_network(family, base_filters=8), SOURCES)
    trainer.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    losses = trainer.fit({"stems": sources}, batch_size=NUM_SEGMENTS, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param({"output": output}, marks=pytest.mark.slow)
            for output in ("difference", "complex_mask", "consistent_mask", "decoupled_mask")
        ),
    ],
    ids=lambda options: options.get("output", "default"),
)
def test_the_same_seed_gives_the_same_weights(options):
    """At the size that people train: sums of gradients that depend on the order of threads show only there."""
    sources = (noise(4, len(SOURCES), 44100, 2) * 32768).astype(np.int16)

    def train():
        keras.utils.set_random_seed(0)
        section = family_class("unet_2d")().changed(options)
        trainer = Trainer(section.build(sources=SOURCES, num_channels=2, sample_rate=22050), SOURCES)
        trainer.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
        trainer.fit({"stems": sources}, batch_size=4, epochs=4, verbose=0)
        return trainer.get_weights()

    for first, second in zip(train(), train(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_training_separates_the_sum_of_the_augmented_sources():
    sources = (noise(4, len(SOURCES), 50, 2) * 32768).astype(np.int16)
    augmentations = make_augmentations(
        remix=True, random_gain_db=6.0, channel_swap=True, polarity=True, speed_semitones=3.0, seed=0
    )
    outputs = Trainer(echo(), SOURCES, augmentations)({"stems": sources}, training=True)
    augmented = np.array(outputs["sources"])
    assert np.abs(augmented - sources.transpose(0, 2, 1, 3) / 32768).max() > 0.1
    expected = np.repeat(augmented.sum(axis=2, keepdims=True), len(SOURCES), axis=2)
    np.testing.assert_allclose(outputs["estimates"], expected, rtol=0, atol=1e-6)


def test_a_source_may_be_the_sum_of_stems():
    """Added up after augmentation, and the mixture stays the sum of all."""
    stems = (noise(2, 4, 50, 2) * 32768).astype(np.int16)
    mixture = keras.Input((None, 2), name="mixture")
    model = keras.Model(mixture, {"vocals": mixture, "accompaniment": keras.layers.Identity()(mixture)})
    network = Network(model, grid_samples=1, reach_samples=0, core=model)
    outputs = Trainer(network, ["vocals", "accompaniment"], num_parts=[1, 3])({"stems": stems}, training=True)
    expected = stems.transpose(0, 2, 1, 3).astype(np.float64) / 32768
    sums = np.stack([expected[:, :, 0], expected[:, :, 1:].sum(axis=2)], axis=2)
    np.testing.assert_allclose(outputs["sources"], sums, rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs["estimates"][:, :, 0], expected.sum(axis=2), rtol=0, atol=1e-6)

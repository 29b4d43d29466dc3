"""Augmentation: changes that it may make to stems, and what it must leave as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches.augmentation import RandomSnr, make_augmentations

ALL = {"remix": True, "random_gain_db": 6.0, "channel_swap": True, "polarity": True, "speed_semitones": 3.0}
NONE = {"remix": False, "random_gain_db": 0.0, "channel_swap": False, "polarity": False, "speed_semitones": 0.0}


def noise(batch_size, num_samples=20, num_sources=4, num_channels=2):
    generator = np.random.default_rng(0)
    return generator.uniform(-1, 1, (batch_size, num_samples, num_sources, num_channels)).astype(np.float32)


def one(**value):
    """The layer of one augmentation."""
    [layer] = make_augmentations(**value, seed=0)
    return layer


def by_stem(examples):
    """One row for each stem of each example: `[batch * num_sources, num_samples, num_channels]`."""
    return np.asarray(examples).transpose(0, 2, 1, 3).reshape(-1, examples.shape[1], examples.shape[3])


def test_remix_deals_the_segments_of_each_source_anew():
    sources, remix, shifts = noise(5), one(remix=True), []
    for _ in range(40):
        mixed = np.asarray(remix(sources, training=True))
        for index in range(4):
            # Each row comes from exactly one segment of the same source, and each segment is used once.
            same = (mixed[:, None, :, index] == sources[None, :, :, index]).all(axis=(2, 3))
            np.testing.assert_array_equal(same.sum(axis=0), 1)
            np.testing.assert_array_equal(same.sum(axis=1), 1)
            shifts.append(int(same[0].argmax()))
    shifts = np.reshape(shifts, (40, 4))
    assert set(shifts.ravel()) == set(range(5))
    # Sources move on their own: hardly ever all alike.
    assert np.mean(np.ptp(shifts, axis=1) == 0) < 0.2


def test_gains_are_even_in_decibels_within_their_range():
    sources = noise(500)
    louder = by_stem(one(random_gain_db=6.0)(sources, training=True))
    ratios = louder / by_stem(sources)
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:, :1, :1], ratios.shape), rtol=1e-4)
    gains_db = 20 * np.log10(ratios[:, 0, 0])
    assert -6.001 < gains_db.min() < -5.9 and 5.9 < gains_db.max() < 6.001
    # 2000 draws from an even distribution of 12 dB: one in a thousand counts of a quarter lies further off than 80.
    counts, _ = np.histogram(gains_db, bins=4, range=(-6.001, 6.001))
    assert np.abs(counts - 500).max() < 80


@pytest.mark.parametrize(
    ("layer", "change"),
    [(one(channel_swap=True), lambda stems: stems[..., ::-1]), (one(polarity=True), lambda stems: -stems)],
    ids=["channel swap", "polarity"],
)
def test_every_second_stem_is_changed_by_itself(layer, change):
    sources = noise(250)
    before, after = by_stem(sources), by_stem(layer(sources, training=True))
    changed = (after == change(before)).all(axis=(1, 2))
    np.testing.assert_array_equal((after == before).all(axis=(1, 2)), ~changed)
    # 1000 throws of a coin: further from 500 than 52 in one of a thousand.
    assert abs(changed.sum() - 500) < 52
    # The stems of an example do not go together.
    counts = np.bincount(changed.reshape(250, 4).sum(axis=1), minlength=5) / 250
    np.testing.assert_allclose(counts, np.array([1, 4, 6, 4, 1]) / 16, atol=0.11)


def test_stems_are_played_faster_and_slower_as_numpy_interpolates():
    num_samples, places = 1000, np.arange(1000)
    stems = noise(250, num_samples)
    # Of one channel every value is its place, so it tells where the other one comes from.
    stems[..., 1] = places[:, np.newaxis]
    played = by_stem(one(speed_semitones=3.0)(stems, training=True))
    speeds = played[:, 500, 1].astype(np.float64) / 500
    for stem, before, speed in zip(played, by_stem(stems), speeds, strict=True):
        expected = np.interp(places * speed, places, before[:, 0], period=num_samples)
        np.testing.assert_allclose(stem[:, 0], expected, atol=1e-3)
    # 1000 draws from an even distribution of 6 semitones: one in a thousand counts of a quarter is off by more than 60.
    counts, _ = np.histogram(12 * np.log2(speeds), bins=4, range=(-3.001, 3.001))
    assert counts.sum() == 1000 and np.abs(counts - 250).max() < 60


def test_nothing_happens_outside_of_training():
    sources = noise(4)
    for layer in make_augmentations(**ALL, seed=0):
        np.testing.assert_array_equal(layer(sources), sources)
        np.testing.assert_array_equal(layer(sources, training=False), sources)
        assert np.any(np.asarray(layer(noise(16), training=True)) != noise(16))


def test_only_what_is_switched_on_is_there():
    assert make_augmentations(**NONE, seed=0) == []
    for name, value in ALL.items():
        [layer] = make_augmentations(**{**NONE, name: value}, seed=0)
        assert layer.name == name


def test_one_seed_gives_the_same_stems():
    def augmented(seed):
        sources = noise(8)
        for layer in make_augmentations(**ALL, seed=seed):
            sources = layer(sources, training=True)
        return np.asarray(sources)

    np.testing.assert_array_equal(augmented(3), augmented(3))
    assert np.any(augmented(3) != augmented(4))


def test_each_batch_is_augmented_in_its_own_way_inside_of_a_graph():
    sources = keras.Input((20, 4, 2))
    outputs = sources
    for layer in make_augmentations(**ALL, seed=0):
        outputs = layer(outputs)
    model = keras.Model(sources, outputs)
    step = tf.function(lambda batch: model(batch, training=True))
    batch = tf.constant(noise(8))
    first, second = step(batch), step(batch)
    assert first.shape == batch.shape and np.any(first.numpy() != second.numpy())


def ratios_db(sources):
    """Of the first source against the sum of the others, for each example."""
    sources = np.asarray(sources, np.float64)
    signal, noise = sources[:, :, 0], sources[:, :, 1:].sum(axis=2)
    return 10 * np.log10(np.square(signal).sum(axis=(1, 2)) / np.square(noise).sum(axis=(1, 2)))


@pytest.mark.parametrize("margin_samples", [0, 300])
def test_signal_to_noise_ratios_are_exact_over_the_segment_and_even_in_decibels(margin_samples):
    sources = noise(600, num_samples=800, num_sources=3) * np.random.default_rng(1).uniform(1e-3, 1, (600, 1, 3, 1))
    # What lies around the segment does not count.
    sources[:, :margin_samples] *= 9
    changed = np.asarray(RandomSnr((-5.0, 20.0), seed=0, margin_samples=margin_samples)(sources, training=True))
    np.testing.assert_array_equal(changed[:, :, 0], sources[:, :, 0].astype(np.float32))
    gains = changed[:, :, 1:] / sources[:, :, 1:]
    np.testing.assert_allclose(gains, np.broadcast_to(gains[:, :1, :1, :1], gains.shape), rtol=1e-4)
    found = ratios_db(changed[:, margin_samples : 800 - margin_samples])
    assert -5.1 < found.min() < -4.5 and 19.5 < found.max() < 20.1
    # 600 draws from an even distribution: one in a thousand counts of a fifth lies further off than 33.
    assert np.abs(np.histogram(found, bins=5, range=(-5.1, 20.1))[0] - 120).max() < 33
    again = RandomSnr((-5.0, 20.0), seed=0, margin_samples=margin_samples)(sources, training=True)
    np.testing.assert_array_equal(changed, again)
    exact = RandomSnr((7.5, 7.5), seed=3, margin_samples=margin_samples)(sources, training=True)
    np.testing.assert_allclose(ratios_db(exact[:, margin_samples : 800 - margin_samples]), 7.5, atol=0.1)


def test_silence_gets_no_signal_to_noise_ratio():
    sources = noise(3, num_sources=2)
    sources[0, :, 0] = 0
    sources[1, :, 1] = 0
    layer = RandomSnr((10.0, 10.0), seed=0)
    changed = np.asarray(layer(sources, training=True))
    np.testing.assert_array_equal(changed[:2], sources[:2])
    assert ratios_db(changed[2:]) == pytest.approx(10, abs=0.1)
    np.testing.assert_array_equal(layer(sources), sources)

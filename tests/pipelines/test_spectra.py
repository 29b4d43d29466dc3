"""The spectra against SciPy, librosa and their own definitions, on every path that a model takes."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from pipelines.batches import spectra
from pipelines.errors import UserError

SIZES = [  # frame_length, frame_step
    (512, 256),
    (512, 170),
    (512, 128),
    (512, 171),
    (501, 250),
    (2048, 512),
    (1024, 768),
    (16, 1),
    (3, 1),
    (2, 1),
]
LENGTHS = [1, 2, 101, 511, 512, 513, 1021, 30011]


def make(frame_length, frame_step, **settings):
    return spectra.make_spectra(frame_length=frame_length, frame_step=frame_step, **settings)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def soft_mask(real, imag):
    size = spectra.magnitude(real, imag)
    mask = size / (size + 1)
    return real * mask, imag * mask


@pytest.mark.parametrize(("frame_length", "frame_step"), SIZES)
def test_inverse_gives_every_sample_back(frame_length, frame_step):
    layers = make(frame_length, frame_step)
    for num_samples in LENGTHS:
        waveform = noise(2, num_samples, 2)
        real, imag = layers.stft(waveform)
        assert real.shape == imag.shape == (2, 2, layers.stft.num_frames(num_samples), layers.stft.num_bins)
        assert layers.stft.compute_output_shape(waveform.shape) == (real.shape, imag.shape)
        restored = layers.inverse_stft(real, imag, waveform)
        assert restored.shape == waveform.shape
        np.testing.assert_allclose(restored, waveform, rtol=0, atol=1e-5)


def test_of_no_samples_the_inverse_gives_none():
    layers, nothing = make(512, 128), np.zeros((3, 0, 2), "float32")
    assert layers.inverse_stft(*layers.stft(nothing), nothing).shape == nothing.shape


@pytest.mark.parametrize("num_samples", [1, 300, 5003])
@pytest.mark.parametrize(("frame_length", "frame_step"), [(512, 128), (512, 170), (501, 250)])
def test_stft_is_scipys(frame_length, frame_step, num_samples):
    stft = make(frame_length, frame_step).stft
    waveform = noise(1, num_samples, 2)
    real, imag = stft(waveform)
    window = scipy.signal.get_window("hann", frame_length)
    reference = scipy.signal.ShortTimeFFT(window, frame_step, fs=1, phase_shift=None)
    before = (stft.overlap - 1) * frame_step - reference.m_num_mid
    padded = np.pad(waveform[0].T, [(0, 0), (before, frame_length)])
    expected = reference.stft(padded, p0=0, p1=stft.num_frames(num_samples)).transpose(0, 2, 1)
    np.testing.assert_allclose(real[0], expected.real, atol=1e-4)
    np.testing.assert_allclose(imag[0], expected.imag, atol=1e-4)


@pytest.mark.parametrize("frame_step", [256, 170])
def test_stft_is_librosas(frame_step):
    librosa = pytest.importorskip("librosa", reason="librosa is the reference")
    stft = make(512, frame_step).stft
    waveform = noise(1, 6 * frame_step, 1)
    real, imag = stft(waveform)
    padded = np.pad(waveform[0, :, 0], (stft.overlap - 1) * frame_step)
    expected = librosa.stft(padded, n_fft=512, hop_length=frame_step, center=False).T
    np.testing.assert_allclose(real[0, 0], expected.real, atol=1e-4)
    np.testing.assert_allclose(imag[0, 0], expected.imag, atol=1e-4)


@pytest.mark.parametrize(("frame_length", "frame_step"), [(16, 4), (16, 5), (15, 7)])
def test_inverse_of_a_changed_spectrum_is_the_least_squares_one(frame_length, frame_step):
    layers = make(frame_length, frame_step)
    num_samples = 37
    # One impulse for each sample: the columns of the STFT as a matrix. A bin inside stands for two of the whole circle.
    real, imag = layers.stft(np.eye(num_samples, dtype="float32")[..., None])
    weights = np.full(layers.stft.num_bins, np.sqrt(2))
    weights[0] = 1
    if frame_length % 2 == 0:
        weights[-1] = 1
    weights = np.stack([weights, weights])[:, None, None, None, :]
    matrix = (np.stack([real, imag]) * weights).transpose(1, 0, 2, 3, 4).reshape(num_samples, -1).T
    changed = noise(2, 1, *real.shape[1:])
    expected = np.linalg.lstsq(matrix, (changed * weights).reshape(-1), rcond=None)[0]
    estimate = layers.inverse_stft(changed[0], changed[1], np.zeros((1, num_samples, 1)))
    np.testing.assert_allclose(estimate[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("frame_step", [128, 170])
def test_a_block_gives_the_values_of_the_whole(frame_step):
    layers = make(512, frame_step)
    waveform = noise(1, 9001, 2)
    begin, end = 7 * frame_step, 7 * frame_step + 4000
    block = waveform[:, begin:end]
    real, imag = layers.stft(waveform)
    block_real, block_imag = layers.stft(block)
    inside = slice(layers.stft.overlap - 1, (end - begin - 512) // frame_step)
    shifted = slice(inside.start + 7, inside.stop + 7)
    np.testing.assert_array_equal(block_real[:, :, inside], real[:, :, shifted])
    np.testing.assert_array_equal(block_imag[:, :, inside], imag[:, :, shifted])
    whole = layers.inverse_stft(*soft_mask(real, imag), waveform)[:, begin:end]
    part = layers.inverse_stft(*soft_mask(block_real, block_imag), block)
    inside = slice(511, -511)
    np.testing.assert_allclose(part[:, inside], whole[:, inside], rtol=0, atol=1e-6)
    assert np.max(np.abs(part - whole)) > 1e-3


@pytest.mark.parametrize(
    ("sample_rate", "frame_length", "num_mel_bands"),
    [(44100, 2048, 64), (22050, 1024, 40), (16000, 512, 20), (8000, 256, 1)],
)
def test_mel_bands_are_librosas(sample_rate, frame_length, num_mel_bands):
    librosa = pytest.importorskip("librosa", reason="librosa is the reference")
    layers = make(frame_length, frame_length // 2, sample_rate=sample_rate, num_mel_bands=num_mel_bands)
    size = np.abs(noise(2, 2, 3, frame_length // 2 + 1))
    expected = librosa.filters.mel(sr=sample_rate, n_fft=frame_length, n_mels=num_mel_bands, htk=False, norm="slaney")
    bands = layers.mel(size)
    assert bands.dtype == "float32"
    np.testing.assert_allclose(bands, np.einsum("bctk,mk->bctm", size, expected), rtol=1e-5, atol=1e-6)


def test_band_masks_cover_every_bin():
    layers = make(1024, 256, sample_rate=22050, num_mel_bands=40)
    ones = np.ones((2, 2, 3, 40), "float32")
    bins = layers.mel_to_linear(ones)
    assert bins.shape == (2, 2, 3, 513)
    np.testing.assert_allclose(bins, 1, atol=1e-6)
    mask = np.abs(noise(1, 1, 3, 40))
    bins = np.array(layers.mel_to_linear(mask))[0, 0]
    np.testing.assert_allclose(bins[:, 0], mask[0, 0, :, 0], rtol=1e-6)
    np.testing.assert_allclose(bins[:, -1], mask[0, 0, :, -1], rtol=1e-6)
    assert bins.min() >= 0
    assert bins.max() <= 1


def test_band_masks_go_back_by_the_normalised_transpose():
    librosa = pytest.importorskip("librosa", reason="librosa is the reference")
    layers = make(1024, 256, sample_rate=22050, num_mel_bands=20)
    impulses = np.eye(20, dtype="float32")[None, None]
    bins = np.array(layers.mel_to_linear(impulses))[0, 0].T
    centres = librosa.mel_frequencies(n_mels=22, fmin=0, fmax=11025)[1:-1]
    bin_hz = librosa.fft_frequencies(sr=22050, n_fft=1024)
    inside = (bin_hz > centres[0]) & (bin_hz < centres[-1])
    triangles = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=20, norm=None)[:, inside].T
    np.testing.assert_allclose(bins[inside], triangles / triangles.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_float32_under_any_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layers = make(512, 170, sample_rate=16000, num_mel_bands=20)
        waveform = keras.ops.cast(noise(1, 2000, 2), "float16")
        real, imag = layers.stft(waveform)
        bands = layers.mel(spectra.magnitude(real, imag))
        bins = layers.mel_to_linear(keras.ops.cast(bands, "float16"))
        restored = layers.inverse_stft(real, imag, waveform)
    finally:
        keras.config.set_dtype_policy(before)
    assert {tensor.dtype.name for tensor in (real, imag, bands, bins, restored)} == {"float32"}
    np.testing.assert_allclose(restored, keras.ops.cast(waveform, "float32"), rtol=0, atol=1e-5)


def mask_model():
    """A Functional model of any length with something to learn in it."""
    layers = make(512, 170, sample_rate=16000, num_mel_bands=20)
    mixture = keras.Input((None, 2), name="mixture")
    real, imag = layers.stft(mixture)
    assert real.shape == (None, 2, None, 257)
    bands = layers.mel(spectra.magnitude(real, imag))
    mask = layers.mel_to_linear(keras.layers.Dense(20, activation="sigmoid")(bands))
    return keras.Model(mixture, layers.inverse_stft(real * mask, imag * mask, mixture))


def test_model_of_any_length_trains_saves_and_exports(tmp_path):
    model = mask_model()
    model.compile("adam", "mse")
    mixture = noise(4, 3001, 2)
    history = model.fit(mixture, mixture / 4, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    mixture = noise(1, 777, 2)
    expected = model(mixture)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(mixture), expected)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, [keras.InputSpec(shape=(None, None, 2), dtype="float32")])
    archive.write_out(tmp_path / "saved", verbose=False)
    np.savez(tmp_path / "pair.npz", mixture=mixture, expected=expected)
    code = """
import sys, numpy as np, tensorflow as tf
pair = np.load("pair.npz")
saved = tf.saved_model.load("saved")
np.testing.assert_allclose(saved.serve(pair["mixture"]), pair["expected"], atol=1e-6)
assert "pipelines" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_compiled_by_xla_is_the_same():
    model = mask_model()
    mixture = tf.constant(noise(2, 1777, 2))

    def loss_and_gradients(mixture):
        with tf.GradientTape() as tape:
            tape.watch(mixture)
            loss = tf.reduce_sum(tf.square(model(mixture)))
        return loss, *tape.gradient(loss, [mixture, *model.trainable_variables])

    plain = tf.function(loss_and_gradients)(mixture)
    compiled = tf.function(loss_and_gradients, jit_compile=True)(mixture)
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("frame_length", "frame_step"), SIZES)
def test_gradient_is_that_of_the_round_trip(frame_length, frame_step):
    layers = make(frame_length, frame_step)
    waveform = tf.constant(noise(1, 700, 2))
    weights = noise(1, 700, 2, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(waveform)
        loss = tf.reduce_sum(layers.inverse_stft(*layers.stft(waveform), waveform) * weights)
    np.testing.assert_allclose(tape.gradient(loss, waveform), weights, rtol=0, atol=1e-5)


def test_gradient_on_silence_is_zero():
    layers = make(512, 170, sample_rate=16000, num_mel_bands=20)
    waveform = tf.zeros((1, 1000, 1))
    with tf.GradientTape() as tape:
        tape.watch(waveform)
        size = spectra.magnitude(*layers.stft(waveform))
        loss = tf.reduce_sum(size)
    np.testing.assert_allclose(size, spectra.MAGNITUDE_FLOOR, rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(loss, waveform), 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frame_length": 1}, "frame_length is 1"),
        ({"frame_step": 0}, "frame_step is 0"),
        ({"frame_step": 385}, "1 to 384"),
        ({"num_mel_bands": 20, "sample_rate": None}, "sample_rate is None"),
        ({"num_mel_bands": 0}, "num_mel_bands is 0"),
        ({"num_mel_bands": 300}, "narrower than a bin"),
    ],
)
def test_mistakes_are_told(settings, words):
    with pytest.raises(UserError, match=words):
        spectra.make_spectra(**{"frame_length": 512, "frame_step": 128, "sample_rate": 16000, **settings})


def test_jax_gives_the_same(tmp_path):
    pytest.importorskip("jax", reason="jax is not installed")
    layers = make(512, 170)
    waveform = noise(1, 1777, 2)
    real, imag = layers.stft(waveform)
    np.savez(tmp_path / "pair.npz", waveform=waveform, real=real, imag=imag)
    code = """
import sys, jax, keras, numpy as np
from pipelines.batches import spectra
assert keras.backend.backend() == "jax"
pair = np.load(sys.argv[1])
layers = spectra.make_spectra(frame_length=512, frame_step=170, sample_rate=16000, num_mel_bands=20)
real, imag = layers.stft(pair["waveform"])
np.testing.assert_allclose(real, pair["real"], atol=1e-4)
np.testing.assert_allclose(imag, pair["imag"], atol=1e-4)
def trip(waveform):
    return layers.inverse_stft(*layers.stft(waveform), waveform)
np.testing.assert_allclose(jax.jit(trip)(pair["waveform"]), pair["waveform"], atol=1e-5)
def loss(waveform):
    size = spectra.magnitude(*layers.stft(waveform))
    return (size * layers.mel_to_linear(layers.mel(size))).sum()
assert np.all(jax.grad(loss)(pair["waveform"] * 0) == 0)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", code, tmp_path / "pair.npz"], env=environment, check=True, timeout=120)

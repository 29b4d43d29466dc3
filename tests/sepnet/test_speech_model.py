"""The model in the box, `saved_models/speech`, on a voice that it has not heard and noise that is made here."""

import os
import subprocess
import sys

import numpy as np
import openvino
import pytest
import soundfile

from sepnet.separation.separator import Separator
from tests.conftest import REPOSITORY
from tests.sepnet.test_combine import TENSORFLOW_ALONE

MODEL = REPOSITORY / "saved_models" / "speech"
SNR_DB = 5.0


@pytest.fixture(scope="module")
def voice():
    """7 s of a voice, float32 `[num_samples, 1]`, and its rate."""
    return soundfile.read(REPOSITORY / "tests" / "data" / "speech" / "prompt.flac", dtype="float32", always_2d=True)


@pytest.fixture(scope="module")
def noisy(voice):
    """The voice in noise that falls by 3 dB an octave and swells, `[num_samples, 1]`, at `SNR_DB`."""
    speech, sample_rate = voice
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=len(speech)))
    spectrum /= np.maximum(np.sqrt(np.arange(len(spectrum))), 1)
    noise = np.fft.irfft(spectrum, len(speech)) * (1 + 0.5 * np.sin(np.arange(len(speech)) * 4 / sample_rate))
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-SNR_DB / 20)
    return (speech[:, 0] + gain * noise).astype(np.float32)[:, None]


def si_sdr_db(true: np.ndarray, estimate: np.ndarray) -> float:
    """By its definition (Le Roux et al. 2019), in float64."""
    true, estimate = (signal.astype(np.float64).ravel() for signal in (true, estimate))
    target = true * (true @ estimate) / (true @ true)
    return 10 * np.log10(target @ target / np.sum((target - estimate) ** 2))


def test_it_is_small():
    sizes = [os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(MODEL) for name in names]
    assert sum(sizes) < 4_000_000


def test_speech_comes_out_of_noise_by_the_command(run, voice, noisy, tmp_path):
    speech, sample_rate = voice
    soundfile.write(tmp_path / "noisy.wav", noisy, sample_rate, "FLOAT")
    outcome = run("sepnet.separate", tmp_path / "noisy.wav", "--model", "saved_models/speech", "-o", tmp_path / "stems")
    assert outcome.status == 0, outcome.stderr
    estimate, _ = soundfile.read(tmp_path / "stems" / "speech.wav", dtype="float32", always_2d=True)
    assert si_sdr_db(speech, noisy) == pytest.approx(SNR_DB, abs=0.3)
    assert si_sdr_db(speech, estimate) > SNR_DB + 5


def test_it_streams_and_runs_without_this_project_and_in_openvino(voice, noisy, tmp_path):
    _, sample_rate = voice
    separator = Separator(MODEL, block_seconds=1.0)
    assert separator.is_exact
    stems = separator(noisy, sample_rate)
    np.testing.assert_allclose(stems["speech"] + stems["noise"], noisy, rtol=0, atol=1e-5)

    np.save(tmp_path / "mixture.npy", noisy[None])
    command = [sys.executable, "-I", "-c", TENSORFLOW_ALONE, str(MODEL / "1")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    compiled = openvino.Core().compile_model(str(MODEL / "1"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    portable = {output.any_name: value for output, value in compiled({"mixture": noisy[None]}).items()}
    with np.load(tmp_path / "stems.npz") as alone:
        for source in ("speech", "noise"):
            np.testing.assert_allclose(alone[source][0], stems[source], rtol=0, atol=1e-5)
            np.testing.assert_allclose(portable[source][0], stems[source], rtol=0, atol=1e-4)

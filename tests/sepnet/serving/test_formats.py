"""Files of all sorts through `POST /separate`, by models that return what they get, against ffmpeg's decoding."""

import io

import numpy as np
import pytest
import soundfile

from sepnet.serving.engine.options import ServeOptions
from tests.audio_files import CASES, expected, make
from tests.sepnet.serving.conftest import running

RATES = (8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000, 352_800)


@pytest.fixture(scope="module")
def echoes(gain_model, tmp_path_factory):
    """A server of models whose one stem is the mixture, one for each rate, so that nothing is resampled."""
    folder = tmp_path_factory.mktemp("echoes")
    for rate in RATES:
        gain_model({"vocals": 1.0, "rest": 0.0}, sample_rate=rate).rename(folder / f"echo{rate}")
    with running(ServeOptions(saved_models=folder, poll_seconds=600)) as server:
        yield server


# tests/pipelines/test_reader.py reads them all with the functions that the server calls.
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=pytest.mark.slow if index % 4 else ()) for index, case in enumerate(CASES)],
)
def test_the_server_hears_what_ffmpeg_decodes(echoes, audio_sources, tmp_path, case):
    path = make(case, audio_sources, tmp_path)
    wanted, stream = expected(path, case)
    rate = int(stream["sample_rate"])
    address = f"/separate?model=echo{rate}&stem=vocals&encoding=FLOAT"
    answer = echoes.post(address, data=path.read_bytes())
    assert answer.status_code == 200, answer.text
    samples, heard_rate = soundfile.read(io.BytesIO(answer.content), dtype="float32", always_2d=True)
    assert (heard_rate, samples.shape) == (rate, wanted.shape)
    np.testing.assert_allclose(samples, wanted, rtol=0, atol=case.tolerance)

"""A SavedModel without this code: it takes WAV files and tensors, tells its contract, has a warm-up; and OpenVINO."""

import io
import json

import numpy as np
import openvino
import pytest
import soundfile
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from sepnet.export.contract import read_contract
from sepnet.export.warmup import WARMUP_FILE
from tests.conftest import REPOSITORY
from tests.sepnet.helpers import EXPORTED, SAMPLE_RATE, SOURCES, noise, stacked


@pytest.fixture(scope="module", params=EXPORTED)
def version(exported, request):
    """The folder of an exported model of each family."""
    return exported[request.param] / "1"


@pytest.fixture(scope="module")
def loaded(version):
    """That model as TensorFlow loads it."""
    return tf.saved_model.load(str(version))


def wav(samples, sample_rate=SAMPLE_RATE, subtype="PCM_16"):
    """A WAV file's bytes, by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype, format="WAV")
    return file.getvalue()


def serving_default(loaded, mixture):
    stems = loaded.signatures["serving_default"](mixture=tf.constant(mixture))
    return {source: stem.numpy() for source, stem in stems.items()}


def test_wav_files_of_any_length_and_channels_come_back_as_stems(loaded):
    """Mono is a stereo file of twice the same; of six channels each pair is separated by itself."""
    songs = [noise(length, channels, seed=channels) for length, channels in ((2001, 1), (3, 2), (4096, 6))]
    answers = loaded.signatures["wav"](wav_bytes=tf.constant([wav(song) for song in songs]))
    assert set(answers) == {f"{source}_bytes" for source in SOURCES}
    for index, song in enumerate(songs):
        num_samples, num_channels = song.shape
        heard, _ = soundfile.read(io.BytesIO(wav(song)), dtype="float32", always_2d=True)
        pairs = np.repeat(heard, 2, axis=1) if num_channels == 1 else heard
        groups = [serving_default(loaded, pairs[None, :, first : first + 2]) for first in range(0, pairs.shape[1], 2)]
        for source in SOURCES:
            stem, sample_rate = soundfile.read(io.BytesIO(answers[f"{source}_bytes"][index].numpy()), always_2d=True)
            assert (sample_rate, stem.shape) == (SAMPLE_RATE, (num_samples, num_channels))
            expected = np.concatenate([group[source][0] for group in groups], axis=1)[:, :num_channels]
            np.testing.assert_allclose(stem, expected, rtol=0, atol=1 / 32768)


def test_stems_that_would_clip_are_made_softer_together(gain_model):
    model = tf.saved_model.load(str(gain_model({"loud": 4.0, "soft": 0.5}, sample_rate=SAMPLE_RATE) / "1"))
    files = [wav(noise(500, 2)), wav(noise(500, 2) / 4)]
    answers = model.signatures["wav"](wav_bytes=tf.constant(files))
    for index, file in enumerate(files):
        song, _ = soundfile.read(io.BytesIO(file))
        gain = 1 / max(4 * np.abs(song).max(), 1)
        assert (gain < 1) == (index == 0)
        for source, factor in {"loud": 4.0, "soft": 0.5}.items():
            stem, _ = soundfile.read(io.BytesIO(answers[f"{source}_bytes"][index].numpy()))
            np.testing.assert_allclose(stem, gain * factor * song, rtol=0, atol=1 / 32768)


def test_tensors_are_exact_whatever_their_lengths(loaded):
    mixtures = [noise(length, 2, seed=length) for length in (2001, 4096, 1)]
    protos = [tf.io.serialize_tensor(mixture).numpy() for mixture in mixtures]
    answers = loaded.signatures["tensor"](mixture_bytes=tf.constant(protos))
    for index, mixture in enumerate(mixtures):
        stems = {source: tf.io.parse_tensor(answers[f"{source}_bytes"][index], tf.float32) for source in SOURCES}
        expected = serving_default(loaded, mixture[None])
        np.testing.assert_allclose(stacked({s: stems[s][None] for s in SOURCES}), stacked(expected), rtol=0, atol=1e-6)


def test_the_contract_can_be_asked_for(version, loaded):
    answers = loaded.signatures["contract"](query=tf.constant(["", "again"]))["contract"]
    assert [json.loads(answer) for answer in answers.numpy()] == [read_contract(version)] * 2


WRONG = {
    "rate": ("wav", wav(noise(100, 2), 44_100), "44100.*Hz; this model takes 8000 Hz"),
    "bits": ("wav", wav(noise(100, 2), subtype="PCM_24"), "16-bit"),
    "no samples": ("wav", wav(noise(0, 2)), "no samples"),
    "no WAV": ("wav", b"no WAV file at all", "RIFF"),
    "half a header": ("wav", wav(noise(100, 2))[:30], "short"),
    "rank": ("tensor", tf.io.serialize_tensor(noise(1, 100, 2)).numpy(), r"\[1 100 2\].*expected \[num_samples, 2\]"),
    "channels": ("tensor", tf.io.serialize_tensor(noise(100, 3)).numpy(), r"\[100 3\].*expected \[num_samples, 2\]"),
    "type": ("tensor", tf.io.serialize_tensor(np.zeros((100, 2))).numpy(), "double"),
    "no tensor": ("tensor", b"no tensor", "TensorProto"),
    "NaN": ("tensor", tf.io.serialize_tensor(noise(100, 2) * np.float32(np.nan)).numpy(), "holds NaN or infinity"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_separated_is_refused_inside_the_graph(loaded, case):
    signature, value, message = WRONG[case]
    name = {"wav": "wav_bytes", "tensor": "mixture_bytes"}[signature]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.signatures[signature](**{name: tf.constant([value])})


def test_openvino_reads_the_saved_model(version, loaded):
    """Another runtime altogether; precision is named, since it takes bfloat16 where the processor has it."""
    compiled = openvino.Core().compile_model(str(version), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch_size, num_samples in ((1, 4096), (2, 1001)):
        mixture = noise(batch_size, num_samples, 2)
        answer = compiled({"mixture": mixture})
        expected = serving_default(loaded, mixture)
        for source in SOURCES:
            np.testing.assert_allclose(answer[source], expected[source], rtol=0, atol=1e-3)


def test_tensorflow_servings_own_messages_read_the_warm_up(version, loaded):
    """The requests are what TensorFlow Serving's package says they are, and the model answers each of them."""
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE))
    ]
    requests = [log.predict_log.request for log in logs]
    assert [request.model_spec.signature_name for request in requests] == ["serving_default", "wav", "tensor"]
    for log, request in zip(logs, requests, strict=True):
        assert log.WhichOneof("log_type") == "predict_log"
        assert request.model_spec.name == version.parent.name
        inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
        stems = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert len(stems) == len(SOURCES)


def test_tensorflow_serving_would_read_the_list_of_models():
    text = (REPOSITORY / "docs" / "serving" / "models.config").read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path) == ("demo", "/models/demo")

"""Spleeter itself with random weights: a checkpoint in the layout of its releases, and what it makes of a recording.

Spleeter's trained weights are a large download, and its fresh ones hide mistakes: every instrument starts alike, and
batch normalisation starts as the identity. So this takes the networks that Spleeter 2.4.2 builds, gives each of their
variables values of its own, saves them as Spleeter's archives do, and has Spleeter separate the recording with them.
Another program that reads the same weights has to get the same stems.

It runs apart from the rest of this project, in an environment of its own, since Spleeter asks for TensorFlow 2.12:

    python3.11 -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install tensorflow-cpu==2.12.1 numpy==1.24.3 scipy==1.10.1 jax==0.4.13 ml-dtypes==0.2.0 \
        protobuf==4.25.5 "grpcio<1.60" "setuptools<70" pandas==1.5.3 typer==0.3.2 httpx==0.19.0 soundfile
    ENVIRONMENT/bin/pip install --no-deps spleeter==2.4.2
    ENVIRONMENT/bin/python benchmarks/originals/spleeter_reference.py --stems 4 --audio MIXTURE.wav --out FOLDER

The folder gets

- `checkpoint`, `model.index`, `model.data-00000-of-00001` and `model.meta`, as TensorFlow writes them;
- `weights.tar.gz`, the first three of them, as in an archive of Spleeter's;
- `stems.npz`, for each instrument float32 `[num_samples, 2]`. With `--stretch N`: `[3, N, 2]`, the first, the middle
  and the last N samples, and in `places` where each of the three begins.
"""

import argparse
import gzip
import io
import json
import math
import pathlib
import tarfile
import tempfile

import numpy as np
import soundfile
import tensorflow as tf
from spleeter.model import EstimatorSpecBuilder, InputProviderFactory
from spleeter.separator import Separator
from spleeter.utils.configuration import load_configuration

PUBLISHED_FILTERS = "16,32,64,128,256,512"
PREFIX = "model"
ARCHIVED = ("checkpoint", f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001")
# One in a thousand of a network's last values, before its sigmoid or softmax, lies further from their mean than this.
LARGEST_LOGIT = 1.25


class Network:
    """Spleeter's own graph in a session, for one recording.

    Args:
        params: a configuration of Spleeter's.
        waveform: float32 `[num_samples, 2]`.
    """

    def __init__(self, params: dict, waveform: np.ndarray):
        tf.compat.v1.train.create_global_step()
        self.features = InputProviderFactory.get(params).get_input_dict_placeholders()
        self.builder = EstimatorSpecBuilder(self.features, params)
        self.outputs = {name: self.builder.outputs[name] for name in params["instrument_list"]}
        self.num_instruments = len(self.outputs)
        self.variables = {each.op.name: each for each in tf.compat.v1.global_variables()}
        # A segment's worth is enough to choose the weights by; the first frame is Spleeter's silence.
        self._head = waveform[: (params["T"] - 1) * params["frame_step"]]
        self._num_frames = math.ceil((len(self._head) + params["frame_length"]) / params["frame_step"])
        self._num_times, self._waveform = params["T"], waveform
        self._session = tf.compat.v1.Session()
        self._session.run(tf.compat.v1.global_variables_initializer())

    def evaluate(self, tensors, whole: bool = True):
        """The tensors' values for the recording, or for its beginning."""
        waveform = self._waveform if whole else self._head
        return self._session.run(tensors, {self.features["waveform"]: waveform, self.features["audio_id"]: ""})

    def assign(self, values: dict[str, np.ndarray]) -> None:
        """Gives variables their values."""
        initializers = {name: self.variables[name].initializer for name in values}
        fed = {initializers[name].inputs[1]: value for name, value in values.items()}
        self._session.run(list(initializers.values()), fed)

    def randomise(self, seed: int) -> None:
        """Gives every variable random values with which no layer dies and no mask sticks to 0 or 1.

        Every channel of every convolution gets about zero mean and unit spread over the recording, which takes the
        layers in their order; so there is little for batch normalisation's own moments to correct.
        """
        generator = np.random.default_rng(seed)
        kernels, others = {}, {}
        for name, variable in self.variables.items():
            shape, (layer, _, kind) = variable.shape.as_list(), name.rpartition("/")
            if kind == "kernel":
                kernels[layer] = generator.standard_normal(shape)
            elif kind in ("gamma", "moving_variance"):
                others[name] = generator.uniform(0.5, 1.5, shape)
            elif kind in ("beta", "moving_mean"):
                others[name] = generator.uniform(-0.5, 0.5, shape)
        self.assign({**{f"{layer}/kernel": kernel for layer, kernel in kernels.items()}, **others})
        layers, depth = list(kernels), len(kernels) // self.num_instruments
        for step in range(depth):
            # The same step of every instrument.
            self._scale({layer: kernels[layer] for layer in layers[step::depth]}, generator, step == depth - 1)

    def _scale(self, kernels: dict[str, np.ndarray], generator: np.random.Generator, is_last: bool) -> None:
        graph = tf.compat.v1.get_default_graph()
        # The biases are still zero.
        found = self.evaluate([graph.get_tensor_by_name(f"{layer}/BiasAdd:0") for layer in kernels], whole=False)
        scaled = {}
        for (layer, kernel), values in zip(kernels.items(), found, strict=True):
            stride = self._num_times // values.shape[1]
            heard = values.reshape(-1, *values.shape[2:])[: math.ceil(self._num_frames / stride)]
            heard = heard.reshape(-1, heard.shape[-1]).astype(np.float64)
            mean = heard.mean(axis=0)
            spread = np.quantile(abs(heard - mean), 0.999, axis=0) / LARGEST_LOGIT if is_last else heard.std(axis=0)
            # A transposed convolution's kernel has the channels of its output before those of its input.
            scaled[f"{layer}/kernel"] = kernel / (spread[:, None] if "transpose" in layer else spread)
            scaled[f"{layer}/bias"] = generator.uniform(-0.3, 0.3, mean.shape) - mean / spread
        self.assign(scaled)

    def save(self, folder: pathlib.Path) -> None:
        """Writes the checkpoint, and the archive of it."""
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        saver.save(self._session, str(folder / PREFIX))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in ARCHIVED:
                member = tarfile.TarInfo(name)
                member.size = (folder / name).stat().st_size
                with (folder / name).open("rb") as file:
                    archive.addfile(member, file)
        (folder / "weights.tar.gz").write_bytes(gzip.compress(packed.getvalue(), mtime=0))

    def describe_masks(self, num_bins: int) -> None:
        """Prints how the masks are spread, and refuses those that say little.

        Raises:
            SystemExit: a mask is nearly the same everywhere, or mostly 0 or 1.
        """
        masks, mixture = self.evaluate((self.builder.masks, self.builder.stft_feature))
        power = abs(mixture[:, :num_bins]).astype(np.float64) ** 2
        power /= power.sum()
        print("mask            min    1 %   50 %   99 %    max   std; by power: mean   std  outside 0.001..0.999")
        for name, mask in masks.items():
            mask = mask[:, :num_bins].astype(np.float64)
            percentiles = np.quantile(mask, (0, 0.01, 0.5, 0.99, 1))
            mean = (power * mask).sum()
            spread = math.sqrt((power * (mask - mean) ** 2).sum())
            stuck = power[abs(mask - 0.5) > 0.499].sum()
            print(
                f"{name:13}", *(f"{each:6.3f}" for each in percentiles), f"{mask.std():5.3f}", " " * 8,
                f"{mean:5.3f} {spread:5.3f}  {stuck:.4f}",
            )  # fmt: skip
            if mask.std() < 0.02 or spread < 0.02 or stuck > 0.05:
                raise SystemExit(f"the mask of {name} says too little; take another --seed")


def main() -> None:
    """Makes the folder that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--stems", type=int, choices=(2, 4, 5), default=4)
    parser.add_argument("--filters", default=PUBLISHED_FILTERS, help="of the six encoder layers (%(default)s)")
    parser.add_argument("--audio", type=pathlib.Path, required=True, help="a stereo WAV or FLAC file of 44.1 kHz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stretch", type=int, help="keep three stretches of so many samples of the stems")
    arguments = parser.parse_args()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)

    params = load_configuration(f"spleeter:{arguments.stems}stems")
    params["model_dir"] = str(arguments.out.resolve())
    params["model"]["params"]["conv_n_filters"] = [int(each) for each in arguments.filters.split(",")]
    waveform, sample_rate = soundfile.read(arguments.audio, dtype="float32", always_2d=True)
    if sample_rate != params["sample_rate"] or waveform.shape[1] != params["n_channels"]:
        raise SystemExit(f"{arguments.audio} is not a stereo recording of {params['sample_rate']} Hz")

    arguments.out.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default():
        network = Network(params, waveform)
        network.randomise(arguments.seed)
        network.save(arguments.out)
        network.describe_masks(params["F"])
        expected = network.evaluate(network.outputs)
    stems = separate(params, waveform)
    for name in params["instrument_list"]:
        # Spleeter separates with fresh weights, and says nothing, where it finds no checkpoint.
        np.testing.assert_allclose(stems[name], expected[name], rtol=0, atol=1e-5)
    write_stems(arguments.out / "stems.npz", stems, arguments.stretch)


def separate(params: dict, waveform: np.ndarray) -> dict[str, np.ndarray]:
    """Spleeter's stems, by its public class and the checkpoint in `model_dir`."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = pathlib.Path(folder) / "configuration.json"
        configuration.write_text(json.dumps(params))
        stems = Separator(str(configuration), MWF=False, multiprocess=False).separate(waveform)
    return {name: stems[name] for name in params["instrument_list"]}


def write_stems(path: pathlib.Path, stems: dict[str, np.ndarray], stretch: int | None) -> None:
    """Writes all of the stems, or three stretches of each."""
    if stretch is None:
        np.savez(path, **stems)
        return
    spare = len(next(iter(stems.values()))) - stretch
    places = np.array([0, spare // 2, spare])
    kept = {name: np.stack([stem[place : place + stretch] for place in places]) for name, stem in stems.items()}
    np.savez_compressed(path, places=places, **kept)


if __name__ == "__main__":
    main()

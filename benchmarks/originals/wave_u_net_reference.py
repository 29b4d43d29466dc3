"""Wave-U-Net itself with random weights: a checkpoint as its training leaves it, and what it makes of a recording.

Wave-U-Net's trained weights are a large download that may be gone, and fresh ones hide mistakes: their biases are zero.
So this takes the network that Wave-U-Net's own program builds, gives each of its variables values of its own, saves
them as that program does, and has it separate the recording with them. Another program that reads the same weights has
to get the same stems.

It needs the files of https://github.com/f90/Wave-U-Net, which it imports as they are (tried at commit 75eeae6), NumPy,
soundfile, and a TensorFlow 2 that still has the layers of TensorFlow 1 inside (tried with 2.17):

    git clone https://github.com/f90/Wave-U-Net CHECKOUT
    python benchmarks/originals/wave_u_net_reference.py --checkout CHECKOUT --model m4 --audio MIXTURE.wav --out FOLDER

The recording must be at the model's rate, 22,050 Hz, and 44,100 Hz for m5-highsr. The folder gets

- `model-1.index`, `model-1.data-00000-of-00001` and `model-1.meta`, as TensorFlow writes them: the network's variables,
  those of the optimiser and the step, as in training; with `--network-only` the first alone;
- `stems.npz`, for each source float32 `[num_samples, num_channels]` twice: under its name what the program says, which
  takes the song tile by tile, and as `whole_NAME` what its network says of the whole song at once. The network is not
  the same at all places of a song, and without context it sees silence around every tile, so the two differ.
  With `--stretch N`: of the `whole_NAME` alone `[3, N, num_channels]`, the first, the middle and the last N samples,
  and in `places` where each of the three begins.
"""

import argparse
import dataclasses
import importlib
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import soundfile
import tensorflow as tf
from tensorflow.python.layers import layers as old_layers

# As in their Config.py: what all models have, and in what each is another.
PUBLISHED = {
    "network": "unet",
    "batch_size": 16,
    "num_frames": 16_384,
    "num_layers": 12,
    "num_initial_filters": 24,
    "filter_size": 15,
    "merge_filter_size": 5,
    "input_filter_size": 15,
    "output_filter_size": 1,
    "expected_sr": 22_050,
    "mono_downmix": True,
    "output_type": "direct",
    "output_activation": "tanh",
    "context": False,
    "upsampling": "linear",
    "source_names": ["accompaniment", "vocals"],
}
CONTEXT = {"output_type": "difference", "context": True}
STEREO = CONTEXT | {"mono_downmix": False}
MODELS: dict[str, dict[str, Any]] = {
    "m1": {},
    "m2": {"output_type": "difference"},
    "m3": CONTEXT,
    "m4": STEREO,
    "m5": STEREO | {"upsampling": "learned"},
    "m5-highsr": STEREO | {"upsampling": "learned", "expected_sr": 44_100},
    "m6": STEREO | {"source_names": ["bass", "drums", "other", "vocals"]},
}
# What their files import and this has no use for, beside TensorFlow 1's `contrib`.
UNUSED = ("Models.UnetSpectrogramSeparator", "librosa", "musdb", "museval")
PREFIX, STEP = "model", 1
# One in a thousand of the values before an output's hyperbolic tangent lies further from their mean than this. Where
# the last source is the mixture less all outputs, they share it.
LARGEST_OUTPUT = 1.5


class TensorFlow1:
    """TensorFlow 1, as far as they use it: what TensorFlow 2 keeps of it, and the layers that it hides."""

    layers = old_layers

    def __getattr__(self, name: str):
        return getattr(tf.compat.v1, name)


@dataclasses.dataclass(frozen=True)
class Original:
    """Their program for one model.

    Args:
        evaluate: their module `Evaluate`.
        separator: of their class `UnetAudioSeparator`.
        config: its `model_config`.
    """

    evaluate: types.ModuleType
    separator: Any
    config: Mapping[str, Any]

    def place(self, length: int) -> tuple[int, int]:
        """Samples to give for at least `length`, and those of them that lie before the first that comes out."""
        if not self.config["context"]:
            grid = 2 ** self.config["num_layers"]
            return -(-length // grid) * grid, 0
        shape_in, shape_out = self.separator.get_padding(np.array([1, length, 0]))
        return int(shape_in[1]), int(shape_in[1] - shape_out[1]) // 2

    def heard(self, mixture: np.ndarray) -> np.ndarray:
        """The mixture with as many channels as the network has."""
        if self.config["mono_downmix"]:
            return mixture.mean(axis=1, keepdims=True)
        return np.tile(mixture, [1, 2]) if mixture.shape[1] == 1 else mixture

    def predict(self, prefix: pathlib.Path, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Their stems of a mixture, from a checkpoint, tile by tile."""
        tf.compat.v1.reset_default_graph()
        track = types.SimpleNamespace(audio=mixture, rate=self.config["expected_sr"])
        return self.evaluate.predict(track, self.config, str(prefix))

    def predict_whole(self, prefix: pathlib.Path, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Stems of the whole mixture at once; the first sample is one that the network's coarsest grid keeps."""
        tf.compat.v1.reset_default_graph()
        heard = self.heard(mixture)
        num_inputs, begin = self.place(len(heard))
        padded = np.pad(heard, [(begin, num_inputs - begin - len(heard)), (0, 0)])
        placeholder = tf.compat.v1.placeholder(tf.float32, [1, *padded.shape])
        outputs = self.separator.get_output(placeholder, training=False, reuse=False)
        with tf.compat.v1.Session() as session:
            tf.compat.v1.train.Saver().restore(session, str(prefix))
            stems = session.run(outputs, {placeholder: padded[None]})
        # A mono network's stems go to all channels, as `predict` has them.
        num_channels = max(mixture.shape[1], heard.shape[1])
        return {
            name: np.broadcast_to(stem[0, : len(heard)], (len(heard), num_channels)) for name, stem in stems.items()
        }


def load_original(checkout: pathlib.Path, config: Mapping[str, Any]) -> Original:
    """Imports their files, which were written for TensorFlow 1 and an older librosa."""
    sys.path.insert(0, str(checkout))
    for name in UNUSED:
        sys.modules[name] = types.ModuleType(name)
    names = ("Models.InterpolationLayer", "Models.OutputLayer", "Models.UnetAudioSeparator", "Utils", "Evaluate")
    modules = {name: importlib.import_module(name) for name in names}
    for module in modules.values():
        module.tf = TensorFlow1()
    modules["Utils"].resample = _keep_rate
    separator = modules["Models.UnetAudioSeparator"].UnetAudioSeparator(config)
    return Original(modules["Evaluate"], separator, config)


def _keep_rate(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Stands for their resampling, which leaves audio of the model's rate as it is."""
    if from_rate != to_rate:
        raise ValueError(f"{from_rate} Hz and {to_rate} Hz")
    return audio


class Weights:
    """Their graph in a session, as they train it.

    Args:
        original: the program.
        excerpt: float32 `[num_samples, num_channels]`, what the network hears while the weights are chosen.
        network_only: without what training adds.
    """

    def __init__(self, original: Original, excerpt: np.ndarray, network_only: bool):
        tf.compat.v1.reset_default_graph()
        self._excerpt = excerpt[None]
        self._placeholder = tf.compat.v1.placeholder(tf.float32, self._excerpt.shape)
        outputs = original.separator.get_output(self._placeholder, training=True, reuse=False)
        self._network = {each.op.name: each for each in tf.compat.v1.global_variables()}
        self._is_difference = original.config["output_type"] == "difference"
        self._num_outputs = len(original.config["source_names"]) - self._is_difference
        if not network_only:
            tf.compat.v1.get_variable("global_step", [], dtype=tf.int64, trainable=False)
            loss = tf.add_n([tf.reduce_mean(tf.square(each)) for each in outputs.values()])
            with tf.compat.v1.variable_scope("separator_solver"):
                tf.compat.v1.train.AdamOptimizer().minimize(loss, var_list=list(self._network.values()))
        self._all = {each.op.name: each for each in tf.compat.v1.global_variables()}
        self._session = tf.compat.v1.Session()
        self._session.run(tf.compat.v1.variables_initializer(list(self._network.values())))

    def randomise(self, seed: int) -> None:
        """Gives every variable random values with which no layer dies and no output sticks to its bounds.

        Every channel of every convolution gets about zero mean and unit spread over the excerpt, which takes the layers
        in their order.
        """
        generator = np.random.default_rng(seed)
        for name, variable in self._network.items():
            self._assign(name, generator.standard_normal(variable.shape.as_list()))
        layers = [name[: -len("/kernel")] for name in self._network if name.endswith("/kernel")]
        for layer in layers:
            self._assign(f"{layer}/bias", np.zeros(self._network[f"{layer}/bias"].shape))
        for index, layer in enumerate(layers):
            self._scale(layer, generator, is_output=index >= len(layers) - self._num_outputs)
        for name, variable in self._all.items():
            if name == "global_step":
                self._assign(name, np.array(STEP))
            elif name.endswith(("/beta1_power", "/beta2_power")):
                self._assign(name, np.array(0.9 if "beta1" in name else 0.999) ** (STEP + 1))
            elif name not in self._network:
                moments = 1e-3 * generator.standard_normal(variable.shape.as_list())
                self._assign(name, moments**2 if name.endswith("/Adam_1") else moments)

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes the checkpoint and returns the path that its files begin with."""
        saver = tf.compat.v1.train.Saver(list(self._all.values()), write_version=tf.compat.v1.train.SaverDef.V2)
        return pathlib.Path(saver.save(self._session, str(folder / PREFIX), global_step=STEP, write_state=False))

    def _assign(self, name: str, value: np.ndarray) -> None:
        variable = self._all[name]
        variable.load(value.astype(variable.dtype.as_numpy_dtype), self._session)

    def _scale(self, layer: str, generator: np.random.Generator, is_output: bool) -> None:
        tensor = tf.compat.v1.get_default_graph().get_tensor_by_name(f"{layer}/BiasAdd:0")
        values, kernel = self._session.run(
            (tensor, self._network[f"{layer}/kernel"]), {self._placeholder: self._excerpt}
        )
        values = values[0].astype(np.float64)
        mean, spread = values.mean(axis=0), values.std(axis=0)
        if is_output:
            num_added = self._num_outputs if self._is_difference else 1
            spread = np.quantile(abs(values - mean), 0.999, axis=0) * num_added / LARGEST_OUTPUT
        self._assign(f"{layer}/kernel", kernel / spread)
        self._assign(f"{layer}/bias", generator.uniform(-0.3, 0.3, mean.shape) - mean / spread)


def main() -> None:
    """Makes the folder that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=pathlib.Path, required=True, help="the folder of Wave-U-Net's own files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--layers", type=int, default=PUBLISHED["num_layers"], help="(%(default)s)")
    parser.add_argument("--filters", type=int, default=PUBLISHED["num_initial_filters"], help="(%(default)s)")
    parser.add_argument("--audio", type=pathlib.Path, required=True, help="a WAV or FLAC file at the model's rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network-only", action="store_true", help="save nothing of the optimiser, and no step")
    parser.add_argument("--stretch", type=int, help="keep three stretches of so many samples of the whole song's stems")
    arguments = parser.parse_args()

    tf.compat.v1.disable_v2_behavior()
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    sizes = {"num_layers": arguments.layers, "num_initial_filters": arguments.filters}
    config = PUBLISHED | MODELS[arguments.model] | sizes
    mixture, sample_rate = soundfile.read(arguments.audio, dtype="float32", always_2d=True)
    if sample_rate != config["expected_sr"] or mixture.shape[1] > 2:
        raise SystemExit(f"{arguments.audio} is not a mono or stereo recording of {config['expected_sr']} Hz")

    original = load_original(arguments.checkout, config)
    # What the network hears for one tile.
    excerpt = original.heard(mixture)[: original.place(config["num_frames"])[0]]
    excerpt = np.pad(excerpt, [(0, original.place(config["num_frames"])[0] - len(excerpt)), (0, 0)])
    weights = Weights(original, excerpt, arguments.network_only)
    weights.randomise(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    prefix = weights.save(arguments.out)
    tiled = original.predict(prefix, mixture)
    whole = original.predict_whole(prefix, mixture)
    describe(tiled, whole)
    write_stems(arguments.out / "stems.npz", tiled, whole, arguments.stretch)


def describe(tiled: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]) -> None:
    """Prints how the stems are spread, and refuses those that say little.

    Raises:
        SystemExit: a stem is nearly silent, or often at full scale.
    """
    print("stem             min    1 %   50 %   99 %    max    std full scale; tiles from whole: most at sample    rms")
    for name, stem in tiled.items():
        percentiles = np.quantile(stem, (0, 0.01, 0.5, 0.99, 1))
        full = (abs(stem) > 0.999).mean()
        apart = abs(stem.astype(np.float64) - whole[name])
        spread = " ".join(f"{each:6.3f}" for each in (*percentiles, stem.std()))
        most, place, rms = apart.max(), apart.max(axis=1).argmax(), np.sqrt((apart**2).mean())
        print(f"{name:13} {spread} {full:9.5f} {most:24.2e} {place:9} {rms:.1e}")
        if stem.std() < 0.05 or full > 0.02:
            raise SystemExit(f"the stem {name} says too little; take another --seed")


def write_stems(
    path: pathlib.Path, tiled: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray], stretch: int | None
) -> None:
    """Writes all of both, or three stretches of the second."""
    named = {f"whole_{name}": stem for name, stem in whole.items()}
    if stretch is None:
        np.savez(path, **tiled, **named)
        return
    spare = len(next(iter(named.values()))) - stretch
    places = np.array([0, spare // 2, spare])
    kept = {name: np.stack([stem[place : place + stretch] for place in places]) for name, stem in named.items()}
    np.savez_compressed(path, places=places, **kept)


if __name__ == "__main__":
    main()

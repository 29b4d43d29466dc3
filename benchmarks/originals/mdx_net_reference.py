"""KUIELab's MDX-Net itself with random weights: its two kinds of files, and what it makes of recordings.

MDX-Net's trained weights are large downloads, and fresh ones hide mistakes: batch normalisation starts as the identity.
So this takes the network that MDX-Net's own files build, gives each of its weights and statistics a value of its own,
saves them as its training does, and separates recordings with them. Another program that reads the same weights has to
get the same stems.

It needs the files of https://github.com/kuielab/mdx-net, whose network and transforms it imports as they are (tried at
commit bbd46db), and PyTorch, PyTorch Lightning, OmegaConf, ONNX and soundfile (tried with 2.14.1, 2.6.6, 2.4.0, 1.23.2
and 0.14.0):

    git clone https://github.com/kuielab/mdx-net CHECKOUT
    python benchmarks/originals/mdx_net_reference.py --checkout CHECKOUT --audio MIXTURE.wav --out FOLDER

Without further options the network is one of the published ones for vocals. There may be several recordings; the
weights are chosen by the loudest chunks of them all. The folder gets

- `model.onnx`, the network between the spectra, by the exporter and with the settings of their training;
- `model.ckpt`, the same weights as their training leaves them: the layout is that of PyTorch Lightning 1.3.8, down to
  the classes that a checkpoint of that time names and a cautious reader refuses. There are no optimiser's states;
- for each recording an `.npz` of the same name, in it as `vocals` float32 `[num_samples, 2]`. The recording is taken
  chunk by chunk as in their submission to the challenge. `--zero-lowest` and `--compensate` are what Ultimate Vocal
  Remover does beyond that: the lowest bins of the network's input are silenced, the stem is multiplied.
"""

import argparse
import importlib
import pathlib
import sys
import types
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

SAMPLE_RATE = 44_100
TARGET = "vocals"
# The same in all of their configurations.
FIXED = {
    "target_name": TARGET, "lr": 0.0002, "optimizer": "rmsprop", "dim_c": 4, "l": 3, "k": 3, "bn": 8, "bias": False,
    "ckpt": None,
}  # fmt: skip
EXPORTED_OPSET = 13
LIGHTNING_VERSION = "1.3.8"
# The stems' level over that of the recordings.
LEVEL = 0.7
# Of the values before each of the network's ReLUs at least so many must be above zero, and as many below.
LEAST_SHARE = 0.05
# How many chunks the network hears at once, while the weights are chosen and afterwards.
BATCH_SIZE = 4


def load_network(checkout: pathlib.Path, **sizes: int) -> torch.nn.Module:
    """Builds their network for separating, with their own code and fresh weights.

    Args:
        checkout: the folder of their files.
        sizes: those of their constructor's arguments that `FIXED` leaves open.
    """
    sys.path.insert(0, str(checkout))
    # Their helpers for training ask for much that this has no use for. The network's module wants but a name of them.
    helpers = types.ModuleType("src.utils.utils")
    helpers.sdr = None
    sys.modules[helpers.__name__] = helpers
    restore_real_spectra()
    return importlib.import_module("src.models.mdxnet").ConvTDFNet(**FIXED, **sizes).eval()


def restore_real_spectra() -> None:
    """Makes PyTorch's transforms take and return real and imaginary parts, as they did when MDX-Net was written."""
    forward, inverse = torch.stft, torch.istft

    def stft(*arguments, **keywords) -> torch.Tensor:
        return torch.view_as_real(forward(*arguments, **keywords, return_complex=True))

    def istft(spectra: torch.Tensor, **keywords) -> torch.Tensor:
        return inverse(torch.view_as_complex(spectra.contiguous()), **keywords)

    torch.stft, torch.istft = stft, istft


def cut_chunks(network: torch.nn.Module, mixture: np.ndarray) -> torch.Tensor:
    """Cuts a recording as they do: what a chunk's ends give is thrown away, so chunks overlap by as much.

    Args:
        network: theirs.
        mixture: float32 `[num_samples, 2]`.

    Returns:
        float32 `[num_chunks, 2, chunk_size]`. The recording is followed by at least one sample of silence, and by a
        whole chunk's worth where it would fill its last one.
    """
    edge = network.n_fft // 2
    kept = network.chunk_size - 2 * edge
    filling = kept - len(mixture) % kept
    padded = np.pad(mixture, [(edge, filling + edge), (0, 0)]).T
    begins = range(0, len(mixture) + filling, kept)
    return torch.from_numpy(np.stack([padded[:, begin : begin + network.chunk_size] for begin in begins]))


def compute_spectra(network: torch.nn.Module, chunks: torch.Tensor, zero_lowest: int) -> Iterator[torch.Tensor]:
    """Yields the network's inputs, a few chunks at a time."""
    for batch in chunks.split(BATCH_SIZE):
        spectra = network.stft(batch)
        spectra[:, :, :zero_lowest] = 0
        yield spectra


def separate(network: torch.nn.Module, mixture: np.ndarray, zero_lowest: int, compensate: float) -> np.ndarray:
    """Separates a recording, float32 `[num_samples, 2]`; the stem has the same shape."""
    edge = network.n_fft // 2
    inputs = compute_spectra(network, cut_chunks(network, mixture), zero_lowest)
    kept = torch.cat([network.istft(network(spectra))[..., edge:-edge] for spectra in inputs])
    return compensate * kept.transpose(0, 1).reshape(2, -1).numpy().T[: len(mixture)]


class Randomiser:
    """Gives weights and statistics random values with which no layer dies and no value is the same everywhere.

    Args:
        generator: of the random values.
    """

    def __init__(self, generator: torch.Generator):
        self._generator = generator

    def uniform(self, like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        """Random values in a range, of another tensor's shape."""
        return low + (high - low) * torch.rand(like.shape, generator=self._generator)

    def randomise(self, network: torch.nn.Module, spectra: torch.Tensor) -> list[float]:
        """Changes the network's weights and statistics while it hears the spectra, layer by layer.

        Returns:
            for each ReLU the share of the values above zero.
        """
        shares: list[float] = []
        hooks = []
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
                self._fill(layer)
            elif isinstance(layer, torch.nn.BatchNorm2d):
                hooks.append(layer.register_forward_pre_hook(self._set_statistics))
            elif isinstance(layer, torch.nn.ReLU):
                hooks.append(layer.register_forward_pre_hook(lambda _, given: shares.append(_share(given[0]))))
        hooks.append(network.final_conv[0].register_forward_hook(self._centre))
        network(spectra)
        for hook in hooks:
            hook.remove()
        return shares

    def _fill(self, layer: torch.nn.Module) -> None:
        # The places of a transposed convolution's kernel never meet in one output: they are its stride apart.
        is_transposed = isinstance(layer, torch.nn.ConvTranspose2d)
        num_inputs = layer.in_channels if is_transposed else layer.weight[0].numel()
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=self._generator) / num_inputs**0.5)
        if layer.bias is not None:
            layer.bias.copy_(self.uniform(layer.bias, -0.5, 0.5))

    def _set_statistics(self, layer: torch.nn.BatchNorm2d, given: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(given[0], dim=(0, 2, 3))
        layer.running_mean.copy_(mean + self.uniform(mean, -0.5, 0.5) * variance.sqrt())
        layer.running_var.copy_(self.uniform(variance, 0.5, 1.5) * variance)
        layer.num_batches_tracked.fill_(1000)
        layer.weight.copy_(self.uniform(layer.weight, 0.5, 1.5))
        layer.bias.copy_(self.uniform(layer.bias, -0.5, 0.5))

    def _centre(self, layer: torch.nn.Conv2d, _, spectra: torch.Tensor) -> None:
        deviation, mean = torch.std_mean(spectra, dim=(0, 2, 3))
        layer.weight /= deviation[:, None, None, None]
        layer.bias.copy_((layer.bias - mean) / deviation + self.uniform(mean, -0.1, 0.1))


def _share(values: torch.Tensor) -> float:
    return (values > 0).float().mean().item()


def choose_weights(network: torch.nn.Module, mixtures: Iterable[np.ndarray], zero_lowest: int, seed: int) -> None:
    """Randomises the network so that its stems of the mixtures are about as loud as these.

    Raises:
        SystemExit: a layer says too little.
    """
    chunks = torch.cat([cut_chunks(network, mixture) for mixture in mixtures])
    # The network multiplies what it has found, so that loud places come out far louder than others.
    loudest = chunks.flatten(1).std(dim=1).argsort(descending=True)[:BATCH_SIZE]
    inputs = next(compute_spectra(network, chunks[loudest], zero_lowest))
    shares = Randomiser(torch.Generator().manual_seed(seed)).randomise(network, inputs)
    print(f"values above zero before {len(shares)} ReLUs: {min(shares):.2f} to {max(shares):.2f}")
    if min(shares) < LEAST_SHARE or max(shares) > 1 - LEAST_SHARE:
        raise SystemExit("a layer says too little; take another --seed")
    gain = LEVEL * chunks[loudest].std() / network.istft(network(inputs)).std()
    for value in network.final_conv[0].parameters():
        value *= gain


def export(network: torch.nn.Module, path: pathlib.Path) -> None:
    """Writes the network as their callback does, but for the exporter's name: it was the only one then."""
    torch.onnx.export(
        network, (torch.zeros(network.input_sample_shape),), str(path), export_params=True, dynamo=False,
        opset_version=EXPORTED_OPSET, do_constant_folding=True, input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch_size"}, "output": {0: "batch_size"}},
    )  # fmt: skip


def save_checkpoint(network: torch.nn.Module, path: pathlib.Path) -> None:
    """Writes the weights as Lightning did, with the callbacks of their configuration."""
    score = torch.tensor(0.0)
    best = {"monitor": "val/sdr", "best_model_score": score, "best_model_path": "", "current_score": score}
    stopping = {"wait_count": 0, "stopped_epoch": 0, "best_score": score, "patience": 300}
    content = {
        "epoch": 1,
        "global_step": 1000,
        "pytorch-lightning_version": LIGHTNING_VERSION,
        "state_dict": network.state_dict(),
        "callbacks": {EarlyStopping: stopping, ModelCheckpoint: best | {"dirpath": "checkpoints/"}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": dict(network.hparams),
    }
    torch.save(content, path)


def describe(name: str, mixture: np.ndarray, stem: np.ndarray) -> None:
    """Prints how a stem is spread, and refuses one that says little.

    Raises:
        SystemExit: the stem is nearly silent, or has clicks far above its level.
    """
    percentiles = " ".join(f"{each:6.3f}" for each in np.quantile(stem, (0, 0.01, 0.5, 0.99, 1)))
    alike = np.corrcoef(mixture.ravel(), stem.ravel())[0, 1]
    print(f"{name:20} {len(stem):9} {mixture.std():8.4f} {stem.std():8.4f}  {percentiles} {alike:12.3f}")
    if not 0.3 < stem.std() / mixture.std() < 3 or abs(stem).max() > 20 * stem.std():
        raise SystemExit(f"the stem of {name} says too little; take another --seed")


def read_mixture(path: pathlib.Path) -> np.ndarray:
    """Reads a recording as float32 `[num_samples, 2]`.

    Raises:
        SystemExit: the file is at another rate, or not stereo.
    """
    mixture, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    if sample_rate != SAMPLE_RATE or mixture.shape[1] != 2:
        raise SystemExit(f"{path} is not a stereo recording of {SAMPLE_RATE} Hz")
    return mixture


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=pathlib.Path, required=True, help="the folder of MDX-Net's own files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument(
        "--audio", type=pathlib.Path, nargs="+", required=True, help="stereo WAV or FLAC files of 44.1 kHz"
    )
    parser.add_argument("--bins", type=int, default=2048, help="how many the network hears (%(default)s)")
    parser.add_argument("--frames", type=int, default=256, help="of a chunk (%(default)s)")
    parser.add_argument("--n-fft", type=int, default=6144, help="(%(default)s)")
    parser.add_argument("--hop", type=int, default=1024, help="(%(default)s)")
    parser.add_argument("--filters", type=int, default=32, help="that each level has more than the last (%(default)s)")
    parser.add_argument("--levels", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--zero-lowest", type=int, default=0, help="bins to silence in the input (%(default)s)")
    parser.add_argument("--compensate", type=float, default=1.0, help="what to multiply the stem by (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.frames % 2**arguments.levels or arguments.bins % 2**arguments.levels:
        parser.error(f"--frames and --bins must be multiples of {2**arguments.levels}, as there are --levels")
    if arguments.bins > arguments.n_fft // 2 + 1 or arguments.hop * (arguments.frames - 1) <= arguments.n_fft:
        parser.error("--n-fft must have at least --bins, and be shorter than a chunk of --frames")
    return arguments


@torch.no_grad()
def main() -> None:
    """Makes the folder that the command line asks for."""
    arguments = parse_arguments()
    network = load_network(
        arguments.checkout, dim_f=arguments.bins, dim_t=arguments.frames, n_fft=arguments.n_fft,
        hop_length=arguments.hop, num_blocks=2 * arguments.levels + 1, g=arguments.filters,
        overlap=arguments.n_fft // 2,
    )  # fmt: skip
    mixtures = {path: read_mixture(path) for path in arguments.audio}
    choose_weights(network, mixtures.values(), arguments.zero_lowest, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export(network, arguments.out / "model.onnx")
    save_checkpoint(network, arguments.out / "model.ckpt")
    print("recording              samples  its std stem std     min    1 %   50 %   99 %    max  correlation")
    for path, mixture in mixtures.items():
        stem = separate(network, mixture, arguments.zero_lowest, arguments.compensate)
        describe(path.name, mixture, stem)
        np.savez_compressed(arguments.out / f"{path.stem}.npz", **{TARGET: stem})


if __name__ == "__main__":
    main()

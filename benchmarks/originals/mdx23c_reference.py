"""MDX23C itself with random weights: a checkpoint, and what it makes of a recording.

It needs the files of https://github.com/ZFTurbo/Music-Source-Separation-Training, whose network and way through a song
it imports as they are (tried at commit ccc011a), and PyTorch, ml_collections, librosa and soundfile (tried with 2.14.1,
1.1.0, 0.11.0 and 0.14.0):

    git clone https://github.com/ZFTurbo/Music-Source-Separation-Training CHECKOUT
    python benchmarks/originals/mdx23c_reference.py --checkout CHECKOUT --audio MIXTURE.wav --out FOLDER

Without further options the network is the published one for four stems. The folder gets

- `model.ckpt`, the weights as their training leaves them: tensors by name;
- for each recording an `.npz` of the same name, in it each source as float32 `[num_samples, 2]`. With `--num-overlap 1`
  the recording is cut into chunks that know nothing of each other, as the network sees them; their own is 4.
"""

import argparse
import importlib
import pathlib
import sys
import types

import numpy as np
import soundfile
import torch
from ml_collections import ConfigDict

SAMPLE_RATE = 44_100
SOURCES = ["vocals", "bass", "drums", "other"]
LEVEL = 0.7


def import_theirs(checkout: pathlib.Path) -> tuple[types.ModuleType, types.ModuleType]:
    """The modules with their network and with their way through a song."""
    sys.path.insert(0, str(checkout))
    # Their helpers import what only training needs.
    for name in ("loralib", "matplotlib", "matplotlib.pyplot"):
        sys.modules.setdefault(name, types.ModuleType(name))
    helpers = importlib.import_module("utils.model_utils")
    return importlib.import_module("models.mdx23c_tfc_tdf_v3"), helpers


def make_config(arguments: argparse.Namespace) -> ConfigDict:
    """Their configuration, with the sizes of the command line."""
    audio = {
        "chunk_size": arguments.hop * (arguments.frames - 1), "dim_f": arguments.bins, "dim_t": arguments.frames,
        "hop_length": arguments.hop, "n_fft": arguments.n_fft, "num_channels": 2, "sample_rate": SAMPLE_RATE,
    }  # fmt: skip
    model = {
        "act": "gelu", "bottleneck_factor": 4, "growth": arguments.growth, "norm": "InstanceNorm",
        "num_blocks_per_scale": 2, "num_channels": arguments.filters, "num_scales": arguments.levels,
        "num_subbands": 4, "scale": [2, 2],
    }  # fmt: skip
    inference = {"batch_size": 1, "dim_t": arguments.frames, "num_overlap": arguments.num_overlap}
    training = {"instruments": SOURCES, "target_instrument": None, "use_amp": False}
    return ConfigDict({"audio": audio, "model": model, "inference": inference, "training": training})


def randomise(network: torch.nn.Module, mixture: torch.Tensor, seed: int) -> None:
    """Gives every weight a random value with which stems are about as loud as the mixture.

    Args:
        network: theirs.
        mixture: float32 `[1, 2, num_samples]`, one chunk.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            is_transposed = isinstance(layer, torch.nn.ConvTranspose2d)
            num_inputs = layer.in_channels if is_transposed else layer.weight[0].numel()
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / num_inputs**0.5)
        elif isinstance(layer, torch.nn.InstanceNorm2d):
            layer.weight.copy_(0.5 + torch.rand(layer.weight.shape, generator=generator))
            layer.bias.copy_(torch.rand(layer.bias.shape, generator=generator) - 0.5)
    last = network.final_conv[-1].weight
    stems = network(mixture)[0]
    gains = LEVEL * mixture.std() / stems.std(dim=(1, 2))
    last *= gains.repeat_interleave(len(last) // len(gains))[:, None, None, None]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", type=pathlib.Path, required=True, help="the folder of their files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    parser.add_argument("--audio", type=pathlib.Path, nargs="+", required=True, help="stereo files of 44.1 kHz")
    parser.add_argument("--bins", type=int, default=4096, help="how many the network hears (%(default)s)")
    parser.add_argument("--frames", type=int, default=256, help="of a chunk (%(default)s)")
    parser.add_argument("--n-fft", type=int, default=8192, help="(%(default)s)")
    parser.add_argument("--hop", type=int, default=1024, help="(%(default)s)")
    parser.add_argument("--filters", type=int, default=128, help="of the first level (%(default)s)")
    parser.add_argument("--growth", type=int, default=128, help="that each level has more (%(default)s)")
    parser.add_argument("--levels", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--num-overlap", type=int, default=1, help="chunks over each place (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    """Makes the folder that the command line asks for."""
    arguments = parse_arguments()
    networks, helpers = import_theirs(arguments.checkout)
    config = make_config(arguments)
    network = networks.TFC_TDF_net(config).eval()
    mixtures = {path: soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in arguments.audio}
    size = config.audio.chunk_size
    first = next(mixture for mixture in mixtures.values() if mixture.shape[1] >= size)[None, :, :size]
    randomise(network, torch.from_numpy(first), arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), arguments.out / "model.ckpt")
    for path, mixture in mixtures.items():
        stems = helpers.demix(config, network, mixture, torch.device("cpu"), "mdx23c")
        np.savez_compressed(
            arguments.out / f"{path.stem}.npz", **{name: stem.T.astype(np.float32) for name, stem in stems.items()}
        )
        for name, stem in stems.items():
            print(f"{path.name} {name}: {stem.std() / mixture.std():.2f} of the mixture's level")


if __name__ == "__main__":
    main()

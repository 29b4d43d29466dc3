"""Open-Unmix's four target networks, trained for some minutes, or timed; run by `benchmarks.peers`.

All four see the same batches; they learn as Open-Unmix's own program does: magnitudes, mean squared error, Adam with
1e-3, segments of six seconds, mixtures of random stems with gains of 0.25 to 1.25 and exchanged channels.

    python -m benchmarks.open_unmix FOLDER learn SAMPLE_RATE SEED MINUTES
    python -m benchmarks.open_unmix FOLDER speed SAMPLE_RATE
"""

import json
import pathlib
import sys
import time

import numpy as np
import torch
from openunmix.model import OpenUnmix, Separator
from openunmix.transforms import ComplexNorm, make_filterbanks

from benchmarks.timing import median_seconds

TARGETS = ("vocals", "drums", "bass", "other")
BATCH_SIZE, SEGMENT_SECONDS, BANDWIDTH_HZ = 16, 6.0, 16_000
STATISTICS_SONGS, VALIDATIONS, REPEATS = 20, 8, 5


def main() -> None:
    """Does what the command says, in its folder."""
    folder, command, sample_rate, *rest = sys.argv[1:]
    if command == "speed":
        speed(pathlib.Path(folder), int(sample_rate))
    else:
        learn(pathlib.Path(folder), int(sample_rate), int(rest[0]), float(rest[1]))


class Networks:
    """The four networks, their optimizers, and one step of all of them."""

    def __init__(self, songs, sample_rate: int):
        stft, _ = make_filterbanks(n_fft=4096, n_hop=1024, center=False, sample_rate=sample_rate)
        self.encoder = torch.nn.Sequential(stft, ComplexNorm(mono=False))
        self.separator = make_separator(songs, self.encoder, sample_rate)
        self.optimizers = {
            target: torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5)
            for target, network in self.separator.target_models.items()
        }

    def step(self, stems: torch.Tensor) -> None:
        """Trains each with a batch of `draw`."""
        mixture = self.encoder(stems.sum(dim=1))
        for index, (target, optimizer) in enumerate(self.optimizers.items()):
            network = self.separator.target_models[target]
            network.train()
            loss = torch.nn.functional.mse_loss(network(mixture), self.encoder(stems[:, index].contiguous()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def learn(folder: pathlib.Path, sample_rate: int, seed: int, minutes: float) -> None:
    """Trains, validates, and writes `curve.json` and `estimates.npz`."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    with np.load(folder / "songs.npz") as file:
        arrays = dict(file)
    songs = [array for name, array in arrays.items() if name.startswith("train_")]
    networks = Networks(songs, sample_rate)
    begin, curve, pause = time.monotonic(), [], 0.0
    while True:
        spent = time.monotonic() - begin - pause
        if spent >= len(curve) * 60 * minutes / VALIDATIONS:
            before = time.monotonic()
            curve.append((spent / 60, None, validate(networks.separator, arrays)))
            print(f"{spent:.0f} s: val_mse {curve[-1][2]:.5f}", flush=True)
            pause += time.monotonic() - before
        if spent >= 60 * minutes:
            break
        networks.step(draw(songs, generator, sample_rate))
    (folder / "curve.json").write_text(json.dumps(curve))
    tests = [array for name, array in arrays.items() if name.startswith("test_")]
    networks.separator.niter = 1
    estimates = [separate(networks.separator, song[None, 0])[0] for song in tests]
    np.savez(folder / "estimates.npz", **{str(index): stems for index, stems in enumerate(estimates)})


def speed(folder: pathlib.Path, sample_rate: int) -> None:
    """Writes `speed.json`: seconds that training and separating (without Wiener filtering) a second of audio take."""
    generator = np.random.default_rng(0)
    length = int(SEGMENT_SECONDS * sample_rate)
    songs = [generator.uniform(-0.1, 0.1, (1 + len(TARGETS), 2 * length, 2)).astype(np.float32)]
    networks = Networks(songs, sample_rate)
    stems = draw(songs, generator, sample_rate)
    training = median_seconds(lambda: networks.step(stems), REPEATS) / (BATCH_SIZE * SEGMENT_SECONDS)
    forward = median_seconds(lambda: separate(networks.separator, songs[0][None, 0]), REPEATS) / (2 * SEGMENT_SECONDS)
    (folder / "speed.json").write_text(json.dumps({"training": training, "forward": forward}))


def make_separator(songs, encoder, sample_rate: int) -> Separator:
    """Four networks with the statistics of the songs, and what makes a separator of them."""
    spectra = [encoder(torch.from_numpy(song[0].T[None]))[0].mean(0) for song in songs[:STATISTICS_SONGS]]
    joined = torch.cat(spectra, dim=1)
    mean, scale = joined.mean(1).numpy(), joined.std(1).numpy()
    scale = np.maximum(scale, 1e-4 * scale.max())
    num_bins = int(BANDWIDTH_HZ / sample_rate * 4096) + 1
    networks = {
        target: OpenUnmix(
            nb_bins=2049, nb_channels=2, hidden_size=512, input_mean=mean, input_scale=scale, max_bin=num_bins
        )
        for target in TARGETS
    }
    return Separator(networks, niter=0, sample_rate=sample_rate, n_fft=4096, n_hop=1024, nb_channels=2)


def draw(songs, generator, sample_rate: int) -> torch.Tensor:
    """`[batch, target, channel, sample]`: every stem from a song of its own."""
    length = int(SEGMENT_SECONDS * sample_rate)
    batch = np.empty((BATCH_SIZE, len(TARGETS), 2, length), np.float32)
    for item in batch:
        for index, stem in enumerate(item):
            song = songs[generator.integers(len(songs))][index + 1]
            start = generator.integers(max(len(song) - length, 0) + 1)
            segment = song[start : start + length].T * generator.uniform(0.25, 1.25)
            stem[:] = 0
            stem[:, : segment.shape[1]] = segment[::-1] if generator.random() < 0.5 else segment
    return torch.from_numpy(batch)


def separate(separator: Separator, mixture: np.ndarray) -> np.ndarray:
    """`[batch, target, sample, channel]` of `[batch, sample, channel]`."""
    separator.eval()
    with torch.no_grad():
        stems = separator(torch.from_numpy(np.ascontiguousarray(mixture.transpose(0, 2, 1))))
    return stems.numpy().transpose(0, 1, 3, 2)


def validate(separator: Separator, arrays) -> float:
    """The mean squared error on the waveform, as `val_mse`."""
    total = 0.0
    for mixture, stems in zip(arrays["valid_mixture"], arrays["valid_stems"], strict=True):
        estimate = separate(separator, mixture[None].astype(np.float32) / 2**15)[0]
        total += float(np.mean((estimate - stems.astype(np.float32) / 2**15) ** 2))
    return total / len(arrays["valid_stems"])


if __name__ == "__main__":
    main()

"""Streams of samples: read in windows, given again, resampled."""

import collections
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Blocks of stems by source, each `[num_samples, num_channels]`.
Stems = dict[str, np.ndarray]


class Tape:
    """A stream of samples that is read in windows, each beginning at or after the one before."""

    def __init__(self, chunks: Iterable[np.ndarray]):
        self._chunks = iter(chunks)
        self._held: np.ndarray | None = None
        self._start = 0
        self.has_ended = False

    def read(self, first: int, last: int) -> np.ndarray:
        """Samples `first` to `last`, or to the end; what lies before `first` is forgotten."""
        arrived = [] if self._held is None else [self._held[first - self._start :]]
        missing = last - first - sum(map(len, arrived))
        # One sample more than is wanted tells whether this is the end.
        while missing >= 0 and not self.has_ended:
            chunk = next(self._chunks, None)
            self.has_ended = chunk is None
            if chunk is not None:
                arrived.append(chunk)
                missing -= len(chunk)
        self._held, self._start = np.concatenate(arrived) if arrived else np.zeros((0, 1), np.float32), first
        return self._held[: last - first]


class Echo:
    """Passes blocks on, and gives the same samples again, later and in other portions."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = blocks
        self._passed: collections.deque[np.ndarray] = collections.deque()

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self._passed.append(block)
            yield block

    def take(self, num_samples: int) -> np.ndarray:
        """The next samples of those that were passed on, `[num_samples, num_channels]`; there must be so many."""
        portions = []
        while num_samples:
            block = self._passed.popleft()
            portions.append(block[:num_samples])
            if len(block) > num_samples:
                self._passed.appendleft(block[num_samples:])
            num_samples -= len(portions[-1])
        return np.concatenate(portions)


def resample(blocks: Iterable[np.ndarray], from_rate: float, to_rate: float, num_channels: int) -> Iterator[np.ndarray]:
    """Changes the rate of a stream of blocks, float32 `[num_samples, num_channels]`; rates in Hz."""
    if from_rate == to_rate:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(from_rate, to_rate, num_channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)


def resample_stems(
    blocks: Iterable[Stems], sources: Sequence[str], from_rate: int, to_rate: int, num_channels: int
) -> Iterator[Stems]:
    """Changes the rate of all stems, side by side as the channels of one stream."""
    if from_rate == to_rate:
        yield from blocks
        return
    joined = (np.concatenate([block[source] for source in sources], axis=1) for block in blocks)
    for block in resample(joined, from_rate, to_rate, num_channels * len(sources)):
        yield dict(zip(sources, np.split(block, len(sources), axis=1), strict=True))

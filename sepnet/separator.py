"""A SavedModel at work: any rate, any number of channels and any length in, stems of just that shape out."""

import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from pipelines.errors import UserError
from sepnet.export import SIGNATURE, newest_version, read_contract

# Blocks are this much longer than the context that is computed on both sides and thrown away.
BLOCK_CONTEXTS = 4
BLOCK_SECONDS = 10
# Where the context has no end, neighbouring blocks fade into each other over this time.
FADE_SECONDS = 1


class Separator:
    """Separates audio with a SavedModel, block by block, in memory that does not grow with the length.

    Blocks lie on the model's grid and are given the context that its receptive field needs, so the result is that of
    the whole song at once. `is_exact` says whether the model allows this; where it looks at all of its input at once,
    blocks overlap and fade into each other. Songs of another rate are resampled and back; other numbers of channels
    go through the model in groups of as many as it takes.

    Args:
        path: folder of a model, or of one version of it.

    Raises:
        UserError: there is no SavedModel, it is not one of this project's, or it is damaged.
    """

    def __init__(self, path: pathlib.Path | str):
        import tensorflow as tf

        self.path = newest_version(pathlib.Path(path))
        self.contract = read_contract(self.path)
        self.sources: list[str] = self.contract["sources"]
        self.sample_rate: int = self.contract["sample_rate"]
        try:
            # The loaded object must outlive its signature.
            self._loaded = tf.saved_model.load(str(self.path))
            self._signature = self._loaded.signatures[SIGNATURE]
        except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
            raise UserError(f"cannot load the SavedModel {self.path}: it is damaged; export it again") from error
        grid, context = self.contract["grid_samples"], self.contract["context_samples"]
        self.is_exact = context is not None
        self._block = -(-max(BLOCK_CONTEXTS * (context or 0), BLOCK_SECONDS * self.sample_rate) // grid) * grid

    def __call__(self, audio: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
        """Separates a whole signal.

        Args:
            audio: float32 `[num_samples, num_channels]`, full scale ±1.
            sample_rate: Hz.

        Returns:
            For each source float32 `[num_samples, num_channels]`.
        """
        blocks = list(self.separate_blocks([audio], sample_rate, audio.shape[1]))
        if not blocks:
            return {source: np.zeros_like(audio) for source in self.sources}
        return {source: np.concatenate([block[source] for block in blocks]) for source in self.sources}

    def separate_blocks(
        self, blocks: Iterable[np.ndarray], sample_rate: int, num_channels: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Separates a stream of blocks, float32 `[num_samples, num_channels]`, of any lengths.

        Yields:
            Blocks of stems in order; joined, each stem is exactly as long as the blocks joined.
        """
        counter = _Counter(blocks)
        separated = self._stack_stems(self._run(_resample(counter, sample_rate, self.sample_rate, num_channels)))
        num_columns = num_channels * len(self.sources)
        for block in _fit_length(_resample(separated, self.sample_rate, sample_rate, num_columns), counter):
            stems = np.split(block, len(self.sources), axis=1)
            yield dict(zip(self.sources, stems, strict=True))

    def _stack_stems(self, blocks: Iterable[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        for block in blocks:
            yield np.concatenate([block[source] for source in self.sources], axis=1)

    def _run(self, chunks: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Runs the model over a stream at its own rate."""
        tape = _Tape(chunks)
        return self._run_exactly(tape) if self.is_exact else self._run_fading(tape)

    def _run_exactly(self, tape: "_Tape") -> Iterator[dict[str, np.ndarray]]:
        """Gives every block the context that it depends on, and drops what was computed there."""
        context = self.contract["context_samples"]
        done = 0
        while True:
            first = max(done - context, 0)
            window = tape.read(first, done + self._block + context)
            stop = min(done + self._block, first + len(window))
            if stop > done:
                stems = self._apply(window)
                yield {source: stem[done - first : stop - first] for source, stem in stems.items()}
            if tape.has_ended and stop == first + len(window):
                return
            done = stop

    def _run_fading(self, tape: "_Tape") -> Iterator[dict[str, np.ndarray]]:
        """Lets neighbouring blocks overlap and fade into each other; the two weights add up to one."""
        fade = FADE_SECONDS * self.sample_rate
        weights = ((np.arange(fade, dtype=np.float32) + 0.5) / fade)[:, None]
        first, tails = 0, None
        while True:
            window = tape.read(first, first + self._block)
            if not len(window):
                return
            stems = self._apply(window)
            if tails:
                length = min(fade, len(window))
                for source, stem in stems.items():
                    stem[:length] = (1 - weights[:length]) * tails[source][:length] + weights[:length] * stem[:length]
            if tape.has_ended:
                yield stems
                return
            yield {source: stem[:-fade] for source, stem in stems.items()}
            tails = {source: stem[-fade:] for source, stem in stems.items()}
            first += self._block - fade

    def _apply(self, audio: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the model once on `[num_samples, num_channels]`, in groups of the channels that it takes."""
        import tensorflow as tf

        num_channels, size = audio.shape[1], self.contract["num_channels"]
        num_groups = -(-num_channels // size)
        # A group that is not full repeats the last channel, and what that gives is dropped.
        columns = np.minimum(np.arange(num_groups * size), num_channels - 1)
        groups = audio[:, columns].reshape(len(audio), num_groups, size).transpose(1, 0, 2)
        outputs = self._signature(mixture=tf.constant(groups, tf.float32))
        return {
            source: outputs[source].numpy().transpose(1, 0, 2).reshape(len(audio), -1)[:, :num_channels]
            for source in self.sources
        }


class _Tape:
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


class _Counter:
    """Passes blocks on and counts their samples."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = blocks
        self.num_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.num_samples += len(block)
            yield block


def _resample(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int, num_channels: int) -> Iterator[np.ndarray]:
    if from_rate == to_rate:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(from_rate, to_rate, num_channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)


def _fit_length(blocks: Iterable[np.ndarray], counter: _Counter) -> Iterator[np.ndarray]:
    """Cuts or pads the end to the length that went in: resampling there and back may differ by a sample."""
    num_samples, last = 0, None
    for block in blocks:
        last = block
        # While blocks arrive, the counter is ahead of what was separated, but for the last samples.
        block = block[: counter.num_samples - num_samples]
        num_samples += len(block)
        yield block
    missing = counter.num_samples - num_samples
    if missing:
        yield np.zeros((missing, last.shape[1]), np.float32)

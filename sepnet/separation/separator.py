"""A model at work: any rate, any number of channels and any length in, stems of just that shape out."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from pipelines.errors import UserError
from sepnet.separation.sample_streams import Stems, Tape, resample, resample_stems

# Blocks are this much longer than the context that is computed on both sides and thrown away.
BLOCK_CONTEXTS = 4
BLOCK_SECONDS = 10
# With more context than this a block would take too much memory.
MOST_CONTEXT_SECONDS = 15
# Where blocks cannot be joined exactly, neighbours fade into each other over this time.
FADE_SECONDS = 1
# With more channels than any recording has, rows and columns are mixed up. No usual layout has more than the lesser
# number: so many may be more than the samples of a short signal.
MOST_CHANNELS, USUAL_CHANNELS = 64, 8
# No recording is so loud, not even one whose integers were taken for floats; the square of it is a float32 still.
LOUDEST = 2.0**32


class Model(Protocol):
    """A model that a `Separator` runs: a SavedModel on this machine, or one behind a server.

    Attributes:
        name: what it is called.
        contract: `sources`, `sample_rate`, `num_channels`, `grid_samples`, `context_samples` and, if it is there,
            `block_samples` are read.
    """

    name: str
    contract: Mapping[str, Any]

    def __call__(self, mixture: np.ndarray) -> Stems:
        """Float32 `[batch, num_samples, num_channels]` in, one such array for each source out."""


def block_and_context(
    grid_samples: int,
    context_samples: int | None,
    sample_rate: int,
    block_seconds: float | None = None,
    block_samples: int | None = None,
) -> tuple[int, int | None]:
    """Chooses the block and the context in which a song is cut.

    Args:
        grid_samples: see `sepnet.models.network.Network`.
        context_samples: likewise.
        sample_rate: Hz.
        block_seconds: wanted length of a block; None takes one that is long against the context.
        block_samples: the block that a model was trained on, if it looks at all that it is given.

    Returns:
        Samples of a block, a multiple of the grid if it is not `block_samples`, and of the context on either side of
        it, another multiple: None where the model looks further than a block can be large.
    """
    is_exact = context_samples is not None and context_samples <= MOST_CONTEXT_SECONDS * sample_rate
    # Of models of several networks, the context need not be one of the grid. Windows begin on the grid.
    context = -(-context_samples // grid_samples) * grid_samples if is_exact else None
    if block_seconds is None:
        if block_samples and not is_exact:
            return block_samples, None
        wanted = max(BLOCK_CONTEXTS * (context or 0), BLOCK_SECONDS * sample_rate)
    else:
        wanted = max(round(block_seconds * sample_rate), 1)
    return -(-wanted // grid_samples) * grid_samples, context


class Separator:
    """Separates audio with a model, block by block, in memory that does not grow with the length.

    Blocks lie on the model's grid and are given the context that its receptive field needs, so the result is that of
    the whole song at once. Where the model looks at all of its input, or so far that a block would be too large,
    blocks overlap and fade into each other instead; the two weights add up to one. Songs of another rate are resampled
    and back; other numbers of channels go through the model in groups of as many as it takes.

    Args:
        model: folder of a SavedModel or of one of its versions, or a model that is loaded already (`Model`).
        block_seconds: how much is separated at a time; more takes more memory, less repeats more context. By default
            it is long enough that context costs little; for live input it is what the latency is made of.

    Attributes:
        model: what runs.
        contract: the model's.
        sources: names of the stems, in order.
        sample_rate: the model's, Hz.
        is_exact: whether blocks give what the whole song at once would give.

    Raises:
        UserError: there is no SavedModel, it is not one of this project's, or it is damaged.

    >>> import numpy as np
    >>> separator = Separator(folder)
    >>> stems = separator(np.zeros((44_100, 2), np.float32), sample_rate=44_100)
    >>> {name: audio.shape for name, audio in stems.items()}
    {'vocals': (44100, 2), 'other': (44100, 2)}
    """

    def __init__(self, model: pathlib.Path | str | Model, *, block_seconds: float | None = None):
        if isinstance(model, pathlib.Path | str):
            from sepnet.export.saved_model import SavedModel

            model = SavedModel(model)
        if block_seconds is not None and not block_seconds > 0:
            raise UserError(f"block_seconds is {block_seconds}; expected more than 0")
        self.model = model
        self.contract: Mapping[str, Any] = model.contract
        self.sources: list[str] = list(self.contract["sources"])
        self.sample_rate: int = self.contract["sample_rate"]
        self._block, context = block_and_context(
            *(self.contract[key] for key in ("grid_samples", "context_samples", "sample_rate")),
            block_seconds,
            self.contract.get("block_samples"),
        )
        self.is_exact = context is not None
        self._context = context or 0
        self._fade = min(FADE_SECONDS * self.sample_rate, self._block // 2)

    @property
    def latency_seconds(self) -> float:
        """Seconds after which the stems of a sample come out, at the latest, not counting the time to compute.

        It holds at the model's rate; resampling there and back adds up to a quarter of a second.
        """
        # The sample after a block tells that the block is not the last.
        return (self._block + self._context + 1) / self.sample_rate

    @property
    def caution(self) -> str:
        """A warning for the user where blocks fade into each other; empty if they are joined exactly."""
        if self.is_exact:
            return ""
        context = self.contract["context_samples"]
        reason = (
            "the model's normalisation looks at all of its input"
            if context is None
            else f"the model looks {context / self.sample_rate:.0f} s ahead and back"
        )
        return f"{reason}: blocks of {self._block / self.sample_rate:.0f} s are faded into each other instead of joined"

    def __call__(self, audio: np.ndarray, sample_rate: int) -> Stems:
        """Separates a whole signal, float32 `[num_samples, num_channels]`, into such an array for each source.

        Raises:
            UserError: `audio` has another shape, perhaps `[num_channels, num_samples]`; else as `separate_blocks`.
        """
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 2 or len(audio) < audio.shape[1] > USUAL_CHANNELS:
            raise UserError(f"audio has shape {list(audio.shape)}; expected [num_samples, num_channels]")
        blocks = list(self.separate_blocks([audio], sample_rate, audio.shape[1]))
        if not blocks:
            return {source: np.zeros_like(audio) for source in self.sources}
        return {source: np.concatenate([block[source] for block in blocks]) for source in self.sources}

    def separate_blocks(self, blocks: Iterable[np.ndarray], sample_rate: int, num_channels: int) -> Iterator[Stems]:
        """Separates a stream of blocks, float32 `[num_samples, num_channels]`, of any lengths.

        A block of stems is given as soon as the samples that it depends on have come, so `blocks` may be a live input:
        see `latency_seconds`.

        Yields:
            Blocks of stems in order; joined, each stem is exactly as long as the blocks joined.

        Raises:
            UserError: a block has another shape, there are more than 64 channels, the rate is not above 0, or what
                comes in or out holds NaN, infinity or what is louder than any sound.
        """
        if not (1 <= num_channels <= MOST_CHANNELS and sample_rate > 0):
            raise UserError(
                f"the audio has {num_channels} channels at {sample_rate} Hz; expected [num_samples, num_channels] with "
                f"1 to {MOST_CHANNELS} channels, and a rate above 0"
            )
        sound = Sound(blocks, sample_rate, num_channels)
        tape = Tape(resample(sound, sample_rate, self.sample_rate, num_channels))
        separated = self._run_exactly(tape) if self.is_exact else self._run_fading(tape)
        num_samples = 0
        for stems in resample_stems(separated, self.sources, self.sample_rate, sample_rate, num_channels):
            # While blocks arrive, more has come in than was separated, but for the last samples: resampling there and
            # back may differ by one.
            block = {source: stem[: sound.num_samples - num_samples] for source, stem in stems.items()}
            for source, stem in block.items():
                if place := _first_unsound(stem):
                    raise UserError(
                        f"the model makes {place[1]} of the audio as {source}, first at "
                        f"{(num_samples + place[0]) / sample_rate:.3f} s; mend the audio there, or take another model"
                    )
            num_samples += len(block[self.sources[0]])
            yield block
        if missing := sound.num_samples - num_samples:
            yield {source: np.zeros((missing, num_channels), np.float32) for source in self.sources}

    def _run_exactly(self, tape: Tape) -> Iterator[Stems]:
        """Gives every block the context that it depends on, and drops what was computed there."""
        done = 0
        while True:
            first = max(done - self._context, 0)
            window = tape.read(first, done + self._block + self._context)
            stop = min(done + self._block, first + len(window))
            if stop > done:
                stems = self._apply(window)
                yield {source: stem[done - first : stop - first] for source, stem in stems.items()}
            if tape.has_ended and stop == first + len(window):
                return
            done = stop

    def _run_fading(self, tape: Tape) -> Iterator[Stems]:
        """Lets neighbouring blocks overlap and fade into each other; the two weights add up to one."""
        fade = self._fade
        weights = ((np.arange(fade, dtype=np.float32) + 0.5) / fade)[:, None] if fade else np.zeros((0, 1), np.float32)
        first, tails = 0, None
        while True:
            window = tape.read(first, first + self._block)
            if not len(window):
                return
            stems = self._apply(window)
            if tails:
                length = min(fade, len(window))
                for source, stem in stems.items():
                    faded = (1 - weights[:length]) * tails[source][:length] + weights[:length] * stem[:length]
                    stems[source] = np.concatenate([faded, stem[length:]])
            if tape.has_ended:
                yield stems
                return
            kept = len(window) - fade
            yield {source: stem[:kept] for source, stem in stems.items()}
            tails = {source: stem[kept:] for source, stem in stems.items()}
            first += kept

    def _apply(self, audio: np.ndarray) -> Stems:
        """Runs the model once on `[num_samples, num_channels]`, in groups of the channels that it takes."""
        num_channels, size = audio.shape[1], self.contract["num_channels"]
        num_groups = -(-num_channels // size)
        # A group that is not full repeats the last channel, and what that gives is dropped.
        columns = np.minimum(np.arange(num_groups * size), num_channels - 1)
        groups = audio[:, columns].reshape(len(audio), num_groups, size).transpose(1, 0, 2)
        outputs = self.model(groups)
        return {
            source: outputs[source].transpose(1, 0, 2).reshape(len(audio), -1)[:, :num_channels]
            for source in self.sources
        }


class Sound:
    """Passes blocks on and counts their samples; one that is no number would spoil a receptive field of every stem.

    Iteration raises a `UserError` where a block has another shape, or holds NaN, infinity or what is louder than any
    sound.
    """

    def __init__(self, blocks: Iterable[np.ndarray], sample_rate: int, num_channels: int):
        self._blocks, self._sample_rate, self._num_channels = blocks, sample_rate, num_channels
        self.num_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            if block.ndim != 2 or block.shape[1] != self._num_channels:
                raise UserError(f"a block has shape {list(block.shape)}; expected [num_samples, {self._num_channels}]")
            if place := _first_unsound(block):
                raise UserError(
                    f"the audio holds {place[1]}, first at {(self.num_samples + place[0]) / self._sample_rate:.3f} s; "
                    "mend it or cut it there"
                )
            self.num_samples += len(block)
            yield block


def _first_unsound(block: np.ndarray) -> tuple[int, str] | None:
    """Finds the first sample of `[num_samples, num_channels]` that is no sound: its place, and what it is."""
    if not block.size or (block.max() <= LOUDEST and block.min() >= -LOUDEST):
        return None
    place = int(np.argmin((np.abs(block) <= LOUDEST).all(axis=1)))
    loudest = np.abs(block[place]).max()
    return place, f"{loudest:.0e} times full scale" if np.isfinite(loudest) else "NaN or infinity"

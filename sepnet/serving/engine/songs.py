"""A song on the server: checked, separated in a thread, its stems in files that may be sent while they grow."""

import contextlib
import io
import logging
import os
import pathlib
import struct
import tempfile
import threading
from collections.abc import Callable

import numpy as np
import soundfile

from pipelines.audio import reading
from pipelines.errors import UserError, one_line
from sepnet.export.signatures import SERVING_DEFAULT
from sepnet.separation.separator import Separator, Sound
from sepnet.serving.engine.errors import BAD_REQUEST, INTERNAL, TOO_LARGE, UNSUPPORTED, ApiError
from sepnet.serving.engine.options import ServeOptions, folder_prefix
from sepnet.serving.engine.runner import Runner
from sepnet.serving.engine.versions import LoadedVersion

LOGGER = logging.getLogger(__name__)
# Encodings of stems: bytes of a sample, and the number that WAV gives to such samples.
ENCODINGS = {"PCM_16": (2, 1), "PCM_24": (3, 1), "FLOAT": (4, 3)}
HEADER_BYTES = 44
MOST_WAV_BYTES = (1 << 32) - 1
MOST_CHANNELS = 8
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000
WAITING, CHECKING, SEPARATING, DONE, FAILED, GONE = "waiting", "checking", "separating", "done", "failed", "gone"


class Song:
    """One song that is being separated.

    Attributes:
        state: the step it is at, as `WAITING` or `DONE`.
        error: the error for the client, if it has failed.
        remarks: the parts of the upload that could not be decoded or were passed over; "" if there are none.
        sample_rate, num_channels, num_samples: of the upload, once it is being separated.
        num_done: samples that are written.
        sources: the stems that are written.
        encoding: of the stems' samples, a key of `ENCODINGS`.

    Args:
        version: the model, kept in memory by the caller until the song is done.
        notify: called from the song's thread whenever something has changed.
    """

    def __init__(self, version: LoadedVersion, sources: list[str], encoding: str, notify: Callable[[], None]):
        self._version: LoadedVersion | None = version
        self._model, self._notify = {"model": version.name, "version": version.number}, notify
        self.sources, self.encoding = sources, encoding
        self._folder = tempfile.TemporaryDirectory(prefix=folder_prefix(os.getpid()))
        self.upload = pathlib.Path(self._folder.name, "upload")
        self.state = WAITING
        self.error: ApiError | None = None
        self.remarks = ""
        self.sample_rate = self.num_channels = self.num_samples = self.num_done = 0
        self._is_given_up = threading.Event()

    def give_up(self) -> None:
        """Cancels the song, which no client waits for any more: its thread ends after the current block."""
        self._is_given_up.set()

    def remove(self) -> None:
        """Removes its files, and lets go of the model: its progress may be asked for long after.

        One that no thread was at, since it did not arrive whole or its client left, is gone.
        """
        if self.state == WAITING:
            self.state = GONE
        self._folder.cleanup()
        self._version = None

    def stem_path(self, source: str) -> pathlib.Path:
        """Returns the path that the samples of a stem are written to, without a header."""
        return pathlib.Path(self._folder.name, f"stem {self.sources.index(source)}")

    @property
    def stem_bytes(self) -> int:
        """Length of a stem's samples, once they are all there."""
        return self.num_samples * self.num_channels * ENCODINGS[self.encoding][0]

    def wav_header(self) -> bytes:
        """Returns the WAV header that comes before the samples of each stem."""
        sample_bytes, number = ENCODINGS[self.encoding]
        rate, num_channels, frame_bytes = self.sample_rate, self.num_channels, sample_bytes * self.num_channels
        form = struct.pack("<HHIIHH", number, num_channels, rate, rate * frame_bytes, frame_bytes, 8 * sample_bytes)
        parts = (b"WAVEfmt ", struct.pack("<I", len(form)), form, b"data", struct.pack("<I", self.stem_bytes))
        return b"RIFF" + struct.pack("<I", HEADER_BYTES - 8 + self.stem_bytes) + b"".join(parts)

    def progress(self) -> dict[str, str | float | int]:
        """Returns the progress that is shown to the client."""
        rate = self.sample_rate or 1
        return {
            "state": self.state,
            "seconds": self.num_samples / rate,
            "seconds_done": self.num_done / rate,
            **self._model,
            "error": self.error.message if self.error else "",
            "remarks": self.remarks,
        }

    def run(self, runner: Runner, options: ServeOptions) -> None:
        """Separates the upload; whatever goes wrong ends in `state` and `error`."""
        try:
            self._set(CHECKING)
            self._check(options)
            if not self._is_given_up.is_set():
                self._set(SEPARATING)
                self._separate(runner, options)
            # The client may have received everything and left before this line: still DONE.
            self._set(DONE if 0 < self.num_samples == self.num_done else GONE)
        except ApiError as error:
            self._fail(error)
        except UserError as error:
            self._fail(ApiError(BAD_REQUEST, one_line(error)))
        except OSError as error:
            self._fail(cannot_keep(error))
        except Exception:
            # An error raised in this thread reaches neither the log nor the client by itself.
            LOGGER.exception("cannot separate a song")
            self._fail(ApiError(INTERNAL, "the server failed at this song; its log says more"))

    def _set(self, state: str) -> None:
        self.state = state
        self._notify()

    def _fail(self, error: ApiError) -> None:
        self.error = error
        self._set(FAILED)

    def _check(self, options: ServeOptions) -> None:
        """Reads the song once, so that it is known to be whole, and how long it is, before the first byte is sent."""
        with contextlib.ExitStack() as stack:
            try:
                recording = self._open(stack)
            except UserError as error:
                raise ApiError(UNSUPPORTED, one_line(error)) from error
            num_samples = self._measure(recording, options)
            self.remarks = one_line(recording.remarks())
        info = recording.info
        self.sample_rate, self.num_channels, self.num_samples = info.sample_rate, info.num_channels, num_samples
        if self.stem_bytes + HEADER_BYTES > MOST_WAV_BYTES:
            raise ApiError(TOO_LARGE, "a stem would not fit into a WAV file of 4 GB; ask for encoding=PCM_16")

    def _open(self, stack: contextlib.ExitStack) -> reading.Recording:
        """Opens the upload until the stack is closed."""
        file = stack.enter_context(self.upload.open("rb"))
        # Errors name "the song" and not its path on the server, which is not for the client.
        return stack.enter_context(reading.open_audio(file, "the song"))

    def _measure(self, recording: reading.Recording, options: ServeOptions) -> int:
        """Returns how many samples a recording has."""
        info = recording.info
        most_samples = int(options.max_song_seconds * info.sample_rate)
        if not (1 <= info.num_channels <= MOST_CHANNELS and LOWEST_RATE <= info.sample_rate <= HIGHEST_RATE):
            raise ApiError(
                UNSUPPORTED,
                f"the song has {info.num_channels} channels at {info.sample_rate} Hz; expected at most {MOST_CHANNELS} "
                f"channels and {LOWEST_RATE} to {HIGHEST_RATE} Hz",
            )
        too_long = ApiError(TOO_LARGE, f"the song is longer than {options.max_song_seconds:g} s")
        if info.num_samples > most_samples and not info.is_guess:
            raise too_long
        sound = Sound(recording.blocks(), info.sample_rate, info.num_channels)
        for _ in sound:
            if self._is_given_up.is_set():
                break
            if sound.num_samples > most_samples:
                raise too_long
        return sound.num_samples

    def _separate(self, runner: Runner, options: ServeOptions) -> None:
        separator = Separator(_OnRunner(self._version, runner, options))
        with contextlib.ExitStack() as stack:
            files = {source: stack.enter_context(self.stem_path(source).open("wb")) for source in self.sources}
            recording = self._open(stack)
            for stems in separator.separate_blocks(recording.blocks(), self.sample_rate, self.num_channels):
                if self._is_given_up.is_set():
                    return
                for source, file in files.items():
                    # Files are written by Python, since libsndfile does not say why it cannot: a full disk has a name.
                    samples = io.BytesIO()
                    soundfile.write(samples, stems[source], self.sample_rate, self.encoding, "LITTLE", "RAW")
                    file.write(samples.getbuffer())
                    file.flush()
                self.num_done += len(stems[self.sources[0]])
                self._notify()


class _OnRunner:
    """A model for `Separator` that takes its turn among all that the server runs."""

    def __init__(self, version: LoadedVersion, runner: Runner, options: ServeOptions):
        self._version, self._runner = version, runner
        self._limit = version.most_samples(options.max_predict_seconds)
        self.name, self.contract = version.name, version.contract

    def __call__(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        # Each row by itself, a block of some channels: all of a song's channels together may be more than runs at once.
        inputs = [{"mixture": np.ascontiguousarray(row[np.newaxis], np.float32)} for row in mixture]
        runs = [
            self._runner.submit(self._version, SERVING_DEFAULT, row, row["mixture"].shape[1], self._limit)
            for row in inputs
        ]
        outputs = [run.result() for run in runs]
        return {source: np.concatenate([output[source] for output in outputs]) for source in outputs[0]}


def cannot_keep(error: OSError) -> ApiError:
    """Returns the error for a client where the server has no room for a song or its stems."""
    return ApiError(507, f"the server cannot keep the song: {error.strerror}")

"""`POST /separate`: a song in, a ZIP of its stems or one of them out, sent while the song is being separated."""

import asyncio
import collections
import contextlib
import logging
import time
import zipfile
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sepnet.serving.engine.errors import BAD_REQUEST, NOT_FOUND, UNSUPPORTED, ApiError, unavailable
from sepnet.serving.engine.options import MIB, ServeOptions
from sepnet.serving.engine.runner import Runner
from sepnet.serving.engine.songs import DONE, FAILED, GONE, HEADER_BYTES, Song, cannot_keep
from sepnet.serving.engine.store import ModelStore
from sepnet.serving.routes.disconnect import disconnected
from sepnet.serving.routes.file_names import disposition, safe_name, song_name
from sepnet.serving.routes.rest import ERROR_ANSWERS

LOGGER = logging.getLogger(__name__)
JOB_PATTERN = r"[A-Za-z0-9_-]{8,64}"
# Progress can be asked for a while after the end.
MOST_JOBS = 256
CHUNK_BYTES = MIB // 4
BINARY_BODY = {"schema": {"type": "string", "format": "binary"}}
AUDIO_BODY = {"required": True, "content": {"application/octet-stream": BINARY_BODY}}
STEMS_ANSWER = {
    200: {
        "description": "a ZIP of one WAV for each stem, or one WAV",
        "content": {"application/zip": BINARY_BODY, "audio/wav": BINARY_BODY},
    }
}


class Separation:
    """The songs that are inside, and the threads that separate them."""

    def __init__(self, store: ModelStore, runner: Runner, options: ServeOptions):
        self._store, self._runner, self.options = store, runner, options
        self._threads = ThreadPoolExecutor(options.songs_at_once, thread_name_prefix="song")
        self._jobs: collections.OrderedDict[str, Song] = collections.OrderedDict()

    def stop(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)

    def routes(self) -> APIRouter:
        """`/separate` and the progress of what was sent there."""
        router = APIRouter(prefix="/separate", responses=ERROR_ANSWERS)

        @router.post(
            "",
            response_class=Response,
            responses=STEMS_ANSWER,
            openapi_extra={"requestBody": AUDIO_BODY},
            summary="Separate a song: the file itself is the body",
        )
        async def separate(
            request: Request,
            model: Annotated[str | None, Query(description="name of a model; by default the first of /models")] = None,
            stem: Annotated[str | None, Query(description="one stem, as WAV, instead of a ZIP of all")] = None,
            encoding: Annotated[Literal["PCM_16", "PCM_24", "FLOAT"], Query(description="of the stems")] = "PCM_16",
            name: Annotated[str, Query(description="of the song, for the names of the files")] = "song",
            job: Annotated[str | None, Query(pattern=f"^{JOB_PATTERN}$", description="to ask for progress by")] = None,
        ) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0]
            if media_type.startswith("multipart/"):
                raise ApiError(UNSUPPORTED, "send the file itself as the body, as `curl --data-binary @song.mp3` does")
            return StemsResponse(self, request, model, stem, encoding, song_name(name), job)

        @router.get("/jobs/{job}")
        async def progress(job: Annotated[str, Path(pattern=f"^{JOB_PATTERN}$")]) -> dict[str, Any]:
            if job not in self._jobs:
                raise ApiError(NOT_FOUND, f"no job {job}")
            return self._jobs[job].progress()

        return router

    @contextlib.asynccontextmanager
    async def song(self, model: str | None, stem: str | None, encoding: str, job: str | None) -> AsyncIterator:
        """A song with its model in memory, and the event that tells when something has changed; all gone at the end."""
        if model is None:
            newest = self._store.newest()
            if not newest:
                raise unavailable("there is no model yet", 10)
            model = newest[0].name
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            # If the server has ended meanwhile, its loop is closed and nothing waits for the event.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        with self._store.lease(model) as version:
            sources = list(version.contract["sources"])
            if stem is not None and stem not in sources:
                raise ApiError(BAD_REQUEST, f"no stem {stem!r}; {model} has {', '.join(sources)}")
            try:
                song = Song(version, sources if stem is None else [stem], encoding, notify)
            except OSError as error:
                raise cannot_keep(error) from error
            try:
                self._remember(job, song)
                yield song, changed
            finally:
                song.remove()

    def _remember(self, job: str | None, song: Song) -> None:
        if job is None:
            return
        if job in self._jobs and self._jobs[job].state not in (FAILED, GONE):
            raise ApiError(409, f"there is a job {job} already; choose another name")
        self._jobs[job] = song
        self._jobs.move_to_end(job)
        while len(self._jobs) > MOST_JOBS:
            self._jobs.popitem(last=False)

    def begin(self, song: Song) -> Future:
        """Puts a song among those that wait for a thread."""
        return self._threads.submit(song.run, self._runner, self.options)


class StemsResponse(Response):
    """Receives a song and sends its stems; ends with all it has begun when the client goes away."""

    def __init__(self, separation: Separation, request: Request, model, stem, encoding, name: str, job: str | None):
        super().__init__()
        self._separation, self._request, self._name = separation, request, name
        self._wanted = (model, stem, encoding, job)
        self._is_zip = stem is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._separation.song(*self._wanted) as (song, changed):
            try:
                await self._receive(song)
            except OSError as error:
                raise cannot_keep(error) from error
            thread = self._separation.begin(song)
            gone = asyncio.ensure_future(disconnected(receive))
            try:
                # Most errors occur up to the first block, while the status can still be chosen.
                await _until(song, changed, gone, lambda: song.num_done or song.state in (DONE, FAILED, GONE))
                if song.error:
                    raise song.error
                if not gone.done():
                    await self._send(song, changed, gone, send)
            finally:
                gone.cancel()
                song.give_up()
                # A thread that has not begun never will; one that has ends after its block. It uses files and model.
                if not thread.cancel():
                    await asyncio.wait({asyncio.wrap_future(thread)})

    async def _receive(self, song: Song) -> None:
        with song.upload.open("wb") as file:
            waiting: list[bytes] = []
            async for chunk in self._request.stream():
                waiting.append(chunk)
                if sum(map(len, waiting)) > MIB:
                    await anyio.to_thread.run_sync(file.writelines, waiting)
                    waiting = []
            file.writelines(waiting)

    async def _send(self, song: Song, changed: asyncio.Event, gone: asyncio.Future, send: Send) -> None:
        headers = [(b"x-seconds", f"{song.num_samples / song.sample_rate:.3f}".encode())]
        if song.remarks:
            headers.append((b"x-remarks", song.remarks.encode("ascii", "backslashreplace")))
        if self._is_zip:
            chunks, media_type, file_name = _zip(song, changed, gone), b"application/zip", f"{self._name}.stems.zip"
        else:
            (source,) = song.sources
            chunks, media_type = _wav(song, source, changed, gone), b"audio/wav"
            file_name = f"{self._name}.{_wav_name(song, source)}"
            headers.append((b"content-length", str(HEADER_BYTES + song.stem_bytes).encode()))
        headers += [(b"content-type", media_type), (b"content-disposition", disposition(file_name).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        options, waited_seconds, num_bytes = self._separation.options, 0.0, 0
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                begin = time.monotonic()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                waited_seconds, num_bytes = waited_seconds + time.monotonic() - begin, num_bytes + len(chunk)
                if waited_seconds > options.stall_seconds + num_bytes / options.min_bytes_per_second:
                    # A client that takes its stems so slowly is cut off, to free its place.
                    return
        if song.error:
            # The client only sees that the body breaks off; the log names the reason.
            LOGGER.warning("a song broke off: %s", song.error.message)
        if song.error or gone.done():
            # The missing end of the body tells the client that it is incomplete.
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _wav(song: Song, source: str, changed: asyncio.Event, gone: asyncio.Future) -> AsyncIterator[bytes]:
    """Yields the WAV file of a stem, each block as soon as it is written."""
    yield song.wav_header()
    left = song.stem_bytes
    path = song.stem_path(source)
    await _until(song, changed, gone, lambda: path.exists() or song.state in (FAILED, GONE))
    if not path.exists():
        return
    with path.open("rb") as file:
        while left and not gone.done():
            chunk = file.read(min(CHUNK_BYTES, left))
            left -= len(chunk)
            if chunk:
                yield chunk
            elif song.state in (FAILED, GONE):
                return
            else:
                await _next_change(changed, gone)


async def _zip(song: Song, changed: asyncio.Event, gone: asyncio.Future) -> AsyncIterator[bytes]:
    """Yields a ZIP: the first stem while it is separated, the others from their files; nothing is compressed."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for source in song.sources:
            entry = zipfile.ZipInfo(_wav_name(song, source))
            entry.file_size = HEADER_BYTES + song.stem_bytes
            with archive.open(entry, "w") as file:
                async with contextlib.aclosing(_wav(song, source, changed, gone)) as chunks:
                    async for chunk in chunks:
                        file.write(chunk)
                        yield pipe.take()
            if song.error or gone.done():
                return
    yield pipe.take()


class _Pipe:
    """The file that `zipfile` writes to; it cannot seek, so lengths come after the data."""

    def __init__(self):
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Does nothing: all data is in memory."""

    def take(self) -> bytes:
        """Returns the bytes written since the last call."""
        taken, self._written = b"".join(self._written), []
        return taken


async def _until(song: Song, changed: asyncio.Event, gone: asyncio.Future, condition) -> None:
    while not condition() and not gone.done():
        await _next_change(changed, gone)


async def _next_change(changed: asyncio.Event, gone: asyncio.Future) -> None:
    """Waits until the song has changed since the last time, or its client has gone."""
    waiting = asyncio.ensure_future(changed.wait())
    await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    changed.clear()


def _wav_name(song: Song, source: str) -> str:
    return f"{safe_name(source, f'stem {song.sources.index(source) + 1}')}.wav"

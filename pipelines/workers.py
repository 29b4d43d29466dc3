"""Songs worked on in parallel processes."""

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipelines.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
# Called with the seconds of audio that were worked through since the last call.
Advance = Callable[[float], None]

# Jobs that wait for each worker.
QUEUED = 4
# State that every worker process gets when it starts: the queue for its progress, and the signal to stop.
_worker: dict[str, Any] = {}


class Stopped(Exception):
    """Raised inside a job when the run is given up."""


def run_jobs(
    function: Callable[[Job, Advance], Result],
    jobs: Sequence[Job],
    *,
    advance: Advance,
    workers: int | None = None,
    patience_seconds: float | None = None,
) -> Iterator[tuple[Job, Result | UserError]]:
    """Yields each job with its result, or with the `UserError` that it raised, as they finish.

    Where the caller stops iterating, jobs in progress are given up at their next step. Worker processes end with
    this one, however it ends.

    Args:
        function: a module's function of a job and of an `advance` that it calls now and then; both must pickle.
        jobs: the work, in the order in which it is started.
        advance: called in this process with every job's progress, in seconds of audio.
        workers: processes; None takes one for each CPU core. One, or a single job, runs in this process.
        patience_seconds: where the caller stops, a process that has not given up its job by then is ended; None waits
            for its next step.

    Raises:
        UserError: a worker process was killed.
    """
    workers = min(workers or num_cores(), len(jobs))
    if workers <= 1:
        for job in jobs:
            try:
                yield job, function(job, advance)
            except UserError as error:
                yield job, error
        return
    # A forked child of a process that runs TensorFlow may hang, so workers start from a fresh interpreter.
    context = multiprocessing.get_context("spawn")
    progress, stop = context.Queue(), context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, (progress, stop, patience_seconds))
    try:
        waiting, pending = iter(jobs), {}
        while True:
            # To wait for thousands at once would take longer than the jobs.
            for job in itertools.islice(waiting, QUEUED * workers - len(pending)):
                pending[pool.submit(_run_in_worker, function, job)] = job
            if not pending:
                return
            finished, _ = concurrent.futures.wait(pending, 0.1, concurrent.futures.FIRST_COMPLETED)
            with contextlib.suppress(queue.Empty):
                while True:
                    advance(progress.get_nowait())
            for future in finished:
                job = pending.pop(future)
                try:
                    result = future.result()
                except UserError as error:
                    result = error
                yield job, result
    except concurrent.futures.BrokenExecutor as error:
        raise UserError(
            "a worker process ended before its song was done (out of memory, perhaps); end other programs, or let "
            "fewer workers run, then start again"
        ) from error
    finally:
        stop.set()
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            # The pool has not told its workers to end: they would wait for jobs, and this process for them.
            for worker in multiprocessing.active_children():
                worker.kill()
            raise


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(progress, stop, patience_seconds: float | None) -> None:
    _worker.update(progress=progress, stop=stop)
    # The progress of a run that was given up is not read any more: its workers must not wait until it is.
    progress.cancel_join_thread()
    # Ctrl-C reaches every process of the terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if patience_seconds is not None:
        threading.Thread(target=_end_when_stopped, args=(stop, patience_seconds), daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _end_when_stopped(stop, patience_seconds: float) -> None:
    stop.wait()
    time.sleep(patience_seconds)
    os._exit(1)


def _run_in_worker(function: Callable[[Job, Advance], Result], job: Job) -> Result:
    if _worker["stop"].is_set():
        raise Stopped
    return function(job, _advance_in_worker)


def _advance_in_worker(seconds: float) -> None:
    _worker["progress"].put(seconds)
    if _worker["stop"].is_set():
        raise Stopped

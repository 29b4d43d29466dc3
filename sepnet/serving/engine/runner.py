"""The one thread that runs models: what waits with equal shapes runs together."""

import collections
import dataclasses
import threading
import time
from concurrent.futures import Future

import numpy as np

from sepnet.serving.engine.errors import BAD_REQUEST, INTERNAL, ApiError, unavailable
from sepnet.serving.engine.metrics import Metrics
from sepnet.serving.engine.versions import LoadedVersion

Arrays = dict[str, np.ndarray]
# Weight of the newest run in the running mean of the duration of runs.
NEWEST_WEIGHT = 0.1


@dataclasses.dataclass
class _Task:
    version: LoadedVersion
    signature: str
    inputs: Arrays
    num_samples: int
    limit: int
    answer: Future = dataclasses.field(default_factory=Future)
    put_at: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple:
        """Returns the key that is equal for tasks that may run together."""
        shapes = tuple((name, value.shape[1:], value.dtype.str) for name, value in sorted(self.inputs.items()))
        return (id(self.version), self.signature, shapes)

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.inputs.values())))


class Runner:
    """Runs signatures of models, one run at a time, since a run takes all cores.

    A run starts at once; requests that arrive meanwhile are batched for the next, as many of equal shape as may run
    together, `max_batch` rows at most. Lengths are never made equal by padding: the stems of a model that looks at all
    of its input would change.
    """

    def __init__(self, max_batch: int, metrics: Metrics):
        self._max_batch = max_batch
        self._metrics = metrics
        self._tasks: collections.deque[_Task] = collections.deque()
        self._condition = threading.Condition()
        self._is_stopped = False
        self._run_seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)
        self._thread.start()

    def submit(self, version: LoadedVersion, signature: str, inputs: Arrays, num_samples: int, limit: int) -> Future:
        """Asks for a run.

        Args:
            version: kept in memory by the caller until the answer is there.
            signature: its name.
            inputs: arrays with a common first dimension.
            num_samples: audio in them, all rows together.
            limit: samples that may run at once; a batch never takes more memory than the largest request may.

        Returns:
            A future of the outputs, or of what went wrong, an `ApiError` where the client is to know it. It may be
            cancelled while it waits.
        """
        task = _Task(version, signature, inputs, num_samples, limit)
        with self._condition:
            if self._is_stopped:
                raise unavailable("the server is shutting down")
            self._tasks.append(task)
            self._metrics.queue.set(len(self._tasks))
            self._condition.notify()
        return task.answer

    def wait_seconds(self) -> float:
        """Estimates how long a request that came now would wait."""
        with self._condition:
            return (len(self._tasks) + 1) * self._run_seconds

    def stop(self) -> None:
        """Ends the thread; what waits gets 503."""
        with self._condition:
            self._is_stopped = True
            waiting, self._tasks = list(self._tasks), collections.deque()
            self._condition.notify()
        for task in waiting:
            if task.answer.set_running_or_notify_cancel():
                task.answer.set_exception(unavailable("the server is shutting down"))
        self._thread.join()

    def _work(self) -> None:
        # The local variables of a run are freed before the next wait: neither inputs nor model stay in memory.
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Waits for tasks and runs some; returns whether there may be more."""
        with self._condition:
            while not self._tasks and not self._is_stopped:
                self._condition.wait()
            if self._is_stopped:
                return False
            batch = self._gather()
            self._metrics.queue.set(len(self._tasks))
        batch = [task for task in batch if task.answer.set_running_or_notify_cancel()]
        if batch:
            begin = time.monotonic()
            self._run(batch)
            self._run_seconds += NEWEST_WEIGHT * (time.monotonic() - begin - self._run_seconds)
        return True

    def _gather(self) -> list[_Task]:
        """Takes the task that waits longest, and what may run with it."""
        first = self._tasks.popleft()
        batch, num_rows, num_samples, others = [first], first.num_rows, first.num_samples, collections.deque()
        while self._tasks:
            task = self._tasks.popleft()
            rows, samples = num_rows + task.num_rows, num_samples + task.num_samples
            if task.key == first.key and rows <= self._max_batch and samples <= first.limit:
                batch.append(task)
                num_rows, num_samples = rows, samples
            else:
                others.append(task)
        self._tasks = others
        return batch

    def _run(self, batch: list[_Task]) -> None:
        first, now = batch[0], time.monotonic()
        try:
            inputs = {name: np.concatenate([task.inputs[name] for task in batch]) for name in first.inputs}
            outputs = run_signature(first.version, first.signature, inputs)
        except Exception as error:
            # The thread goes on after any error: without it no request would be answered any more.
            if len(batch) == 1:
                first.answer.set_exception(error)
            else:
                # One bad request must not fail those that it ran with.
                for task in batch:
                    self._run([task])
            return
        for task in batch:
            self._metrics.waiting_seconds.observe(now - task.put_at)
        self._metrics.observe_run(first.version, sum(task.num_samples for task in batch), len(batch))
        start = 0
        for task in batch:
            rows = slice(start, start + task.num_rows)
            task.answer.set_result({name: value[rows] for name, value in outputs.items()})
            start += task.num_rows


def run_signature(version: LoadedVersion, signature: str, inputs: Arrays) -> Arrays:
    """Runs a signature once.

    Raises:
        ApiError: with TensorFlow Serving's status for TensorFlow's error.
    """
    import tensorflow as tf

    try:
        outputs = version.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
    except tf.errors.ResourceExhaustedError as error:
        raise unavailable("there is not enough memory for this request now") from error
    except tf.errors.InvalidArgumentError as error:
        raise ApiError(BAD_REQUEST, _reason(error)) from error
    except tf.errors.OpError as error:
        raise ApiError(INTERNAL, _reason(error)) from error
    # `numpy()` would copy; strings are no buffers.
    return {name: value.numpy() if value.dtype == tf.string else np.asarray(value) for name, value in outputs.items()}


def _reason(error) -> str:
    """The sentence of a TensorFlow error, without where in the graph it came from."""
    where = ("Graph execution", "Detected at", "<stack", "[[", "(")
    lines = [line.strip() for line in error.message.splitlines()]
    told = [line for line in lines if line and not line.startswith(where)]
    return told[0].partition(" [[")[0] if told else error.message

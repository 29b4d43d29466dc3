"""Workers on one machine or a cluster, by Ray Data: each holds a model and makes one shard after the other."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.workers import num_cores
from sepnet.augmentation.worker import Job, Worker
from sepnet.stem_sets.attempts import Attempts

# For small rows and the model; Ray takes a third of the memory otherwise.
STORE_BYTES = 80 << 20
CONNECT_SECONDS, ANSWER_SECONDS = 5, 20
# A shard that a worker is to make next waits with it, so that no worker waits for the driver.
SHARDS_AT_WORKER = 2


def start_ray(address: str | None, workers: int | None, model_bytes: int) -> int:
    """Starts Ray on this machine, or joins a cluster, and returns the number of workers.

    Args:
        address: `HOST:PORT` of a cluster's head node; None for this machine alone.
        workers: how many are wanted; None for one for each GPU or, where there is none, each machine.
        model_bytes: size of the model that the workers are to have.

    Raises:
        UserError: Ray does not start, or no cluster answers.
    """
    # Ray reads it when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It warns of what is lost with the driver; the driver is lost with it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    from ray.exceptions import RayError

    settings = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        store, cores = STORE_BYTES + 2 * model_bytes, max(num_cores(), workers or 1)
        try:
            with _without_greeting():
                ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=store, **settings)
        # Where a machine is too busy, Ray raises just that.
        except Exception as error:
            raise UserError(
                f"Ray does not start here ({one_line(error)[:200]}); end other programs, or start again later"
            ) from error
    else:
        try:
            _check_answers(address)
            with _without_greeting():
                ray.init(address, **settings)
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise UserError(
                f"no Ray cluster answers at {address!r} ({one_line(error)[:100]}); give HOST:PORT of its head node"
            ) from error
    has = ray.cluster_resources()
    if workers is None:
        return int(has.get("GPU", 0)) or sum(node["Alive"] for node in ray.nodes())
    room = int(has.get("GPU", 0) or has["CPU"])
    if workers > room:
        raise UserError(f"--workers is {workers}; the cluster has room for {room}")
    return workers


def _check_answers(address: str) -> None:
    """Raises an `OSError` or a `ValueError` where no head node answers, and a `UserError` where it asks for a token.

    What listens at a port may be anything, and `ray.init` waits for minutes there and ends the process. So Ray's own
    command asks, in a process that can be ended.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"what listens there has said nothing for {ANSWER_SECONDS} s") from error
    if asked.returncode:
        said = asked.stderr.decode(errors="replace").strip() or f"status {asked.returncode}"
        if "AuthenticationError" in said:
            raise UserError(
                f"the Ray cluster at {address!r} asks for a token; set RAY_AUTH_MODE=token, and bring its head node's "
                "~/.ray/auth_token, or start it with RAY_AUTH_MODE=disabled"
            )
        raise ConnectionError(said.splitlines()[-1])


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Keeps from the terminal that Ray, at its start, tells how little it is to tell. Its errors are exceptions."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def threads_per_worker(workers: int) -> int:
    """The most cores that each worker can have, for a worker has those of one machine; with GPUs 1 at the least."""
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fitting = (count for count in range(max(cores), 0, -1) if sum(each // count for each in cores) >= workers)
    return next(fitting, 1)


def make_shards(job: Job, model: Mapping[str, bytes], shards: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """Makes shards and yields what `Worker.make` says of each, with its number as `shard`, as they end.

    A worker that dies is started again, with the shards that it had.

    Raises:
        UserError: a worker cannot write, or cannot go on.
    """
    import ray
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    for name in ("ray.data", "ray.data.dataset"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    shared = ray.put(job), ray.put(dict(model))
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    resources = {"num_gpus": 1} if has_gpus else {"num_cpus": job.num_threads}
    made = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
        ShardWorker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=SHARDS_AT_WORKER),
        fn_constructor_args=shared,
        **resources,
    )
    try:
        for row in made.iter_rows():
            if row["error"]:
                raise UserError(row["error"])
            yield row
    except RayError as error:
        reason = one_line(str(error).strip().splitlines()[-1])[:200]
        raise UserError(f"the workers ended ({reason}); what is done is kept: start again to go on") from error


class ShardWorker:
    """A `Worker` as Ray Data calls it.

    What a user can mend comes back in a row: an exception would come wrapped in three tracebacks. For the same reason
    the model is loaded with the first shard.
    """

    def __init__(self, job: Any, model: Any):
        self._references, self._job, self._worker = (job, model), None, None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list]:
        """Makes the shard of a batch of one."""
        import ray

        shard, row = int(batch["shard"][0]), {}
        try:
            job, model = self._references
            self._job = self._job or ray.get(job)
            attempts = Attempts(self._job.stem_set.destination, shard, self._job.run)
            attempts.begin()
            self._worker = self._worker or Worker(self._job, ray.get(model))
            row = self._worker.make(shard, attempts)
            error = ""
        except UserError as mistake:
            error = str(mistake)
        empty = {"audio_seconds": 0.0, "joules": 0.0, "seconds": 0.0, "model_seconds": 0.0, "ended": 0.0}
        return {name: [value] for name, value in {"shard": shard, "error": error, **empty, **row}.items()}

"""Parallel workers: what is left of them when a run is given up."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection

import pytest

from pipelines.workers import run_jobs


def _doubled(job, advance):
    return 2 * job


def test_a_second_interrupt_leaves_no_worker(monkeypatch):
    """It breaks into the end that the first one began, before workers are told of it."""
    ended, shutdown = [], concurrent.futures.ProcessPoolExecutor.shutdown

    def interrupted(pool, **options):
        ended.append(pool)
        raise KeyboardInterrupt

    monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "shutdown", interrupted)
    results = run_jobs(_doubled, range(9), advance=lambda seconds: None, workers=2)
    job, result = next(results)
    assert result == 2 * job
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    with pytest.raises(KeyboardInterrupt):
        results.close()
    for worker in workers:
        # Where it was left, it would wait for ever. The pool's own thread may be the one that is told how it ended.
        assert multiprocessing.connection.wait([worker.sentinel], 60)
    shutdown(*ended)

"""Work ahead of whoever takes it: order, errors, and how far ahead."""

import threading

import pytest

from pipelines.threads import read_ahead, run_ahead

AHEAD = {
    "run": lambda items, number: run_ahead(lambda item: item, items, number),
    "read": read_ahead,
    "both": lambda items, number: run_ahead(lambda item: item, read_ahead(items, number), number),
}


def numbers(taken: list[int], count: int, error: Exception | None = None):
    for number in range(count):
        taken.append(number)
        yield number
    if error:
        raise error


@pytest.mark.parametrize("ahead", AHEAD.values(), ids=AHEAD)
@pytest.mark.parametrize("count", [0, 1, 20])
def test_all_come_in_order(ahead, count):
    assert list(ahead(numbers([], count), 3)) == list(range(count))


@pytest.mark.parametrize("ahead", AHEAD.values(), ids=AHEAD)
def test_an_error_comes_after_what_was_before_it(ahead):
    results = ahead(numbers([], 5, ZeroDivisionError("the sixth")), 3)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ZeroDivisionError, match="the sixth"):
        next(results)


@pytest.mark.parametrize(("ahead", "most"), [("run", 4), ("read", 4), ("both", 7)])
def test_only_so_many_are_taken_ahead_and_none_after_the_end(ahead, most):
    taken, before = [], {*threading.enumerate()}
    results = AHEAD[ahead](numbers(taken, 100), 3)
    for number in range(10):
        assert next(results) == number
        assert len(taken) <= number + 1 + most
    results.close()
    there = len(taken)
    assert there < 100
    assert {*threading.enumerate()} <= before
    assert len(taken) == there


def test_functions_run_side_by_side():
    meeting = threading.Barrier(3)
    # Each waits for two others; one after the other, none would come back.
    assert len(list(run_ahead(lambda _: meeting.wait(timeout=60), range(3), 3))) == 3


def test_what_reads_ahead_is_at_the_next_while_one_is_looked_at():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    for item in read_ahead(items(), 2):
        assert item == 2 or second.wait(timeout=60)

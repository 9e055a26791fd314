"""Rows of work among threads: each done once, reported in order, stopped by the first error."""

import os
import threading

import pytest

from runtime_pruning.datasets.parallel import map_rows, usable_cores


@pytest.mark.parametrize("threads", [1, 3])
def test_each_row_is_done_once_and_chunks_come_in_order(threads: int) -> None:
    done, lock = [], threading.Lock()

    def work(rows: range) -> None:
        with lock:
            done.extend(rows)

    chunks = list(map_rows(10, work, threads=threads, chunk=4))
    assert chunks == [range(4), range(4, 8), range(8, 10)]
    assert sorted(done) == list(range(10))


def test_no_rows_are_no_work() -> None:
    assert list(map_rows(0, lambda rows: pytest.fail(str(rows)), threads=2, chunk=4)) == []


def test_after_an_error_nothing_else_begins() -> None:
    begun = []

    def work(rows: range) -> None:
        begun.append(rows.start)
        if rows.start == 2:
            raise ValueError("row 2")

    with pytest.raises(ValueError, match="row 2"):
        list(map_rows(1_000, work, threads=1, chunk=2))
    assert begun == [0, 2]


def test_usable_cores_are_those_of_the_process() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)

"""Share out rows of work among threads: for decoders, which work without Python's lock."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


def map_rows(
    count: int, work: Callable[[range], None], *, threads: int, chunk: int
) -> Iterator[range]:
    """Do ``work`` on all rows; yield each chunk of them when it is done, in order.

    The first error is raised, and what has not begun by then never does.

    Args:
        count: rows in all.
        work: does the rows of a chunk; several run at once.
        threads: that work.
        chunk: rows of a chunk; the last may be shorter.
    """
    failed = threading.Event()

    def attempt(rows: range) -> None:
        if not failed.is_set():
            try:
                work(rows)
            except BaseException:
                failed.set()
                raise

    chunks = [range(start, min(start + chunk, count)) for start in range(0, count, chunk)]
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(attempt, rows) for rows in chunks]
        try:
            for rows, job in zip(chunks, jobs, strict=True):
                job.result()
                yield rows
        except BaseException:
            failed.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def usable_cores() -> int:
    """Return the cores that this process may run on, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

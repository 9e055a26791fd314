"""Calls in turns, by a clock of the test's own."""

from collections.abc import Callable

import pytest

from runtime_pruning.timing.turns import compared, fastest_part


def test_a_batch_is_run_in_parts_of_the_size_that_is_fastest() -> None:
    """Fixed time per call, and a penalty beyond what the cache holds: 8 is best of doublings."""
    now = 0.0

    def run(size: int) -> None:
        nonlocal now
        now += 0.1 + size * (0.1 if size <= 8 else 0.4)

    assert fastest_part(run, 100, longest=60.0, clock=lambda: now) == 8
    assert fastest_part(run, 6, longest=60.0, clock=lambda: now) == 6
    assert fastest_part(run, 100, longest=0.45, clock=lambda: now) == 4  # no size beyond is tried


def test_a_burst_does_not_choose_the_part() -> None:
    """Size 8 is best, but what is timed first of it is slowed down; 4 comes next."""
    now, calls = 0.0, 0

    def run(size: int) -> None:
        nonlocal now, calls
        calls += size == 8
        burst = 1.15 if size == 8 and calls <= 3 else 1.0
        now += burst * (0.1 + size * (0.1 if size <= 8 else 0.4)) / 10

    assert fastest_part(run, 16, longest=60.0, clock=lambda: now) == 8


def test_what_may_be_fastest_is_timed_again_beside_the_others() -> None:
    now, ran = 0.0, list[str]()

    def call(name: str, seconds: list[float]) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            ran.append(name)
            now += seconds[min(ran.count(name), len(seconds)) - 1]

        return run

    # Two calls warm up; in the rounds after them a burst slows down what is faster.
    calls = {
        "burst": call("burst", [0.012] * 4 + [0.005]),
        "steady": call("steady", [0.010]),
        "slow": call("slow", [0.030]),
        "dense": call("dense", [0.020]),
    }
    found = compared(calls, "dense", rounds=2, least_seconds=0.0, clock=lambda: now)
    assert min(found, key=found.__getitem__) == "burst"
    assert found["burst"] == pytest.approx(0.25)
    assert ran.count("slow") == 4 < ran.count("burst")

"""Verdicts: by hand on a clock that is told the time, and for real beside a process that hogs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from runtime_pruning.errors import ConfigError
from runtime_pruning.timing.comparison import Interval, Measurement, measure
from runtime_pruning.timing.contamination import Limits, Reading, Watch

# Puts up with everything: for tests of the ratio on a machine that others use.
ANYTHING = Limits(lost=1, crowded=1, stolen=1, dispersion=100)


class Quiet(Watch):
    """Watches processors of which the system tells nothing."""

    def _passed(self) -> None:
        return None


class Told:
    """A clock that shows what the work under test adds to it."""

    def __init__(self) -> None:
        self.now = [0.0, 0.0, 0.0, 0.0]

    def read(self) -> Reading:
        return Reading(*(int(value) for value in self.now))

    def watch(self) -> Watch:
        return Quiet()

    def work(self, *wall_ms: float, cpu: float = 1.0) -> Callable[[], None]:
        """Return work that takes these times in turn, and this share of them in CPU time."""
        calls = 0

        def run() -> None:
            nonlocal calls
            ns = wall_ms[calls % len(wall_ms)] * 1e6
            calls += 1
            wall, thread, process, switches = self.now
            self.now = [wall + ns, thread + ns * cpu, process + 2 * ns * cpu, switches]

        return run


def compare(dense: float, candidate: float) -> Measurement:
    clock = Told()
    return measure(clock.work(dense), clock.work(candidate), clock=clock, rounds=10)


@pytest.mark.parametrize(
    ("dense", "candidate", "verdict"),
    [(3, 2, "faster"), (2, 3, "slower"), (2, 2, "tie"), (2, 2.01, "tie"), (2.01, 2, "tie")],
)
def test_the_verdict_follows_the_ratio(dense: float, candidate: float, verdict: str) -> None:
    measured = compare(dense, candidate)
    assert measured.verdict == verdict
    assert measured.figures is not None
    assert measured.figures.speedup == pytest.approx(Interval(*[dense / candidate] * 3), rel=1e-6)
    assert measured.figures.dense.p50_ms == pytest.approx(dense)
    assert measured.figures.candidate.cpu_p50_ms == pytest.approx(2 * candidate)


def test_quantiles_and_interval_by_hand() -> None:
    clock = Told()
    # Each round calls each work twice: the candidate takes 1 and 3 ms in every round.
    measured = measure(clock.work(4), clock.work(1, 3), clock=clock, rounds=50)
    assert measured.figures is not None
    assert measured.figures.speedup == pytest.approx(Interval(2, 2, 2))
    assert measured.figures.candidate.p50_ms == pytest.approx(2)  # half 1, half 3
    assert measured.figures.candidate.p95_ms == pytest.approx(3)
    assert measured.figures.dense.p99_ms == pytest.approx(4)


def test_a_difference_within_the_noise_is_a_tie() -> None:
    clock = Told()
    # Rounds alternate between speed-ups of 1.15 and 0.95: the interval holds both.
    noisy = clock.work(2, 2, 2.42, 2.42)
    measured = measure(noisy, clock.work(2.1), clock=clock, rounds=20, warmup=0)
    assert measured.verdict == "tie"
    assert measured.figures is not None
    assert measured.figures.speedup.low < 1 < measured.figures.speedup.high


def test_drift_falls_on_both_alike() -> None:
    clock = Told()
    step = 0

    def work() -> None:
        nonlocal step
        step += 1
        clock.work(1 + step / 100)()

    measured = measure(work, work, clock=clock, rounds=50)
    assert measured.verdict == "tie"
    assert measured.figures is not None
    assert measured.figures.speedup.value == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("dense", "why"),
    [
        ({"cpu": 0.9}, "the wall clock ran on while the work did not: lost 0.05 > 0.04"),
        ({"cpu": 0.5}, "lost 0.25 > 0.04"),
    ],
)
def test_a_thread_that_does_not_run_contaminates(dense: dict[str, float], why: str) -> None:
    clock = Told()
    works = clock.work(2, **dense), clock.work(2)
    measured = measure(*works, clock=clock, limits=Limits(lost=0.04), rounds=10)
    assert measured.verdict == "contaminated"
    assert measured.figures is None
    assert why in str(measured)


def test_waiting_for_another_device_is_no_sign() -> None:
    clock, waited = Told(), []
    works = clock.work(2, cpu=0.1), clock.work(2, cpu=0.1)
    measured = measure(*works, clock=clock, synchronise=lambda: waited.append(1), rounds=10)
    assert measured.verdict == "tie"
    assert len(waited) == 4 * (10 + 5)  # four timings a round, five rounds before the clock


def test_interruptions_contaminate_even_where_the_thread_spins() -> None:
    clock = Told()
    spun = clock.work(2, 2, 2, 2, 2, 2, 2, 9)

    def interrupted() -> None:
        before = clock.now[0]
        spun()
        clock.now[3] += clock.now[0] - before > 5e6

    measured = measure(clock.work(2), interrupted, clock=clock, rounds=40, warmup=0)
    # One call of the candidate in eight takes 7 ms too long: 7 / (8 * 2 + 7 + 8 * 2) of the time.
    assert measured.signs.lost == pytest.approx(7 / 39)
    assert measured.verdict == "contaminated"


def test_rounds_that_disagree_contaminate() -> None:
    clock = Told()
    measured = measure(clock.work(1, 1, 2, 2, 4, 4), clock.work(2), clock=clock, rounds=30)
    assert measured.verdict == "contaminated"
    assert measured.signs.dispersion > 0.25
    assert "rounds disagree about the ratio" in str(measured)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rounds": 9}, "`rounds >= 10` must hold, but got 9"),
        ({"calls": 0}, "`calls >= 1` must hold, but got 0"),
        ({"confidence": 1.0}, "`0 < confidence < 1` must hold, but got 1.0"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure(int, int, **setting)
    with pytest.raises(ValueError, match=r"`lost >= 0` must hold, but got -1"):
        Limits(lost=-1)


# For real


@contextmanager
def one_core() -> Iterator[int]:
    """Keep this process on one processor, and torch on one thread."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    core = max(allowed)
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    try:
        yield core
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, allowed)


@contextmanager
def hog(core: int) -> Iterator[None]:
    """Run a process beside this one that wants all of the processor."""
    program = f"import os; os.sched_setaffinity(0, {{{core}}}); print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


MATRIX = torch.rand(160, 160)


def once() -> None:
    MATRIX @ MATRIX


def twice() -> None:
    once()
    once()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_beside_a_hog_there_is_no_number() -> None:
    with one_core() as core, hog(core):
        measured = measure(once, once, rounds=300)
    assert measured.verdict == "contaminated"
    assert measured.figures is None
    assert measured.signs.lost > 0.2


def test_double_work_is_slower_and_the_same_work_a_tie() -> None:
    with one_core():
        double = measure(once, twice, rounds=200, limits=ANYTHING)
        # Whatever else runs here may shift a ratio by some percent.
        same = measure(once, once, rounds=200, limits=ANYTHING, tie=0.1)
    assert double.verdict == "slower"
    assert double.figures is not None
    assert 0.4 < double.figures.speedup.value < 0.6
    assert same.verdict == "tie"

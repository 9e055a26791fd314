"""A timing is a comparison: dense and candidate interleaved in one process, or no number at all.

Each round runs both twice, in the order dense, candidate, candidate, dense and the next time the
other way round, so that a drift of the machine falls on both alike. The speed-up is the median of
the rounds' ratios, with a percentile bootstrap over rounds.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from runtime_pruning.errors import ConfigError
from runtime_pruning.timing.contamination import (
    Clock,
    Limits,
    NoiseReport,
    Reading,
    SystemClock,
    Watch,
    load_average,
)

Verdict = Literal["faster", "slower", "tie", "contaminated"]
Work: TypeAlias = Callable[[], Any]

_RESAMPLES = 2_000
_ORDERS = ((0, 1, 1, 0), (1, 0, 0, 1))  # of dense (0) and candidate (1), alternating


class Interval(NamedTuple):
    """An estimate between the ends of its confidence interval."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Times:
    """How long one call of a callable took, in milliseconds.

    Attributes:
        p50_ms: half of the calls took less wall time.
        p95_ms: 95 % of the calls did.
        p99_ms: 99 % of the calls did.
        cpu_p50_ms: median CPU time, all threads of the process together.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_p50_ms: float


@dataclass(frozen=True)
class Figures:
    """The numbers of a measurement that can be believed.

    Attributes:
        speedup: dense wall time over the candidate's: above 1 the candidate is faster.
        cpu_speedup: the same of CPU times.
        dense: times of the dense callable.
        candidate: times of the candidate.
    """

    speedup: Interval
    cpu_speedup: Interval
    dense: Times
    candidate: Times


@dataclass(frozen=True)
class Measurement:
    """Outcome of a comparison.

    Attributes:
        verdict: exactly one of faster, slower, tie, contaminated: of the candidate.
        figures: None when contaminated: then there is no number.
        signs: what was seen of the machine meanwhile.
        reasons: why it is contaminated.
        rounds: how many.
    """

    verdict: Verdict
    figures: Figures | None
    signs: NoiseReport
    reasons: tuple[str, ...]
    rounds: int

    def __str__(self) -> str:
        if self.figures is None:
            return f"contaminated: {' '.join(self.reasons)}"
        low, value, high = self.figures.speedup
        return f"{self.verdict}: speed-up {value:.3f} ({low:.3f} to {high:.3f})"


def measure(
    dense: Work,
    candidate: Work,
    *,
    rounds: int = 100,
    warmup: int = 5,
    calls: int = 1,
    tie: float = 0.01,
    confidence: float = 0.95,
    seed: int = 0,
    synchronise: Work | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
) -> Measurement:
    """Compare two callables that do the same work.

    Args:
        dense: the baseline.
        candidate: what is compared with it.
        rounds: each times both callables twice.
        warmup: rounds before the clock starts.
        calls: of a callable per timing; more than one hides the tail of single calls, and is
            meant for work of a few microseconds.
        tie: speed-ups within ``1 - tie`` and ``1 + tie`` are none.
        confidence: of the intervals.
        seed: of the bootstrap.
        synchronise: waits for a device other than the CPU, within the timing; then a waiting
            thread is no sign of contamination.
        limits: of the signs of contamination.
        clock: of this machine by default.

    Raises:
        ConfigError: fewer than 10 rounds, or a number outside its range.
    """
    _check(rounds=rounds, warmup=warmup, calls=calls, tie=tie, confidence=confidence)
    clock = clock or SystemClock()
    watch, load = clock.watch(), load_average()
    rig = _Rig((dense, candidate), calls, synchronise, clock)
    for index in range(warmup):
        rig.round(index)
    with _no_collection():
        samples = _Samples.of([rig.round(index) for index in range(rounds)], calls)
    signs = samples.signs(watch, load, calls, waits=synchronise is not None)
    reasons = signs.reasons(limits or Limits())
    if reasons:
        return Measurement("contaminated", None, signs, reasons, rounds)
    figures = samples.figures(confidence, np.random.default_rng(seed))
    return Measurement(_verdict(figures.speedup, tie), figures, signs, (), rounds)


def _check(**settings: float) -> None:
    """Raise on a setting outside its range."""
    rules = {
        "rounds >= 10": settings["rounds"] >= 10,
        "warmup >= 0": settings["warmup"] >= 0,
        "calls >= 1": settings["calls"] >= 1,
        "0 <= tie < 1": 0 <= settings["tie"] < 1,
        "0 < confidence < 1": 0 < settings["confidence"] < 1,
    }
    for rule, holds in rules.items():
        if not holds:
            name = next(word for word in rule.split() if word in settings)
            raise ConfigError(f"`{rule}` must hold, but got {settings[name]}.")


def _verdict(speedup: Interval, tie: float) -> Verdict:
    """Return what an interval says: a difference must lie wholly outside a tie."""
    if speedup.low > 1 + tie:
        return "faster"
    return "slower" if speedup.high < 1 - tie else "tie"


class _Timing(NamedTuple):
    """One timing of one callable: what the clocks moved by."""

    which: int  # 0 dense, 1 candidate
    clocks: Reading


class _Rig(NamedTuple):
    """Everything that a round needs."""

    works: tuple[Work, Work]
    calls: int
    synchronise: Work | None
    clock: Clock

    def round(self, index: int) -> list[_Timing]:
        """Time both callables twice."""
        return [_Timing(which, self._time(self.works[which])) for which in _ORDERS[index % 2]]

    def _time(self, work: Work) -> Reading:
        before = self.clock.read()
        for _ in range(self.calls):
            work()
        if self.synchronise is not None:
            self.synchronise()
        after = self.clock.read()
        return Reading(*(late - early for late, early in zip(after, before, strict=True)))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a timing."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class _Samples:
    """Timings by round (R), callable (W: dense, candidate) and repetition (2)."""

    wall_RW2: NDArray[np.float64]  # ms per call
    thread_RW2: NDArray[np.float64]
    process_RW2: NDArray[np.float64]
    switches_RW2: NDArray[np.float64]

    @staticmethod
    def of(rounds: list[list[_Timing]], calls: int) -> "_Samples":
        """Sort the timings of all rounds."""
        ordered = [sorted(each, key=lambda timing: timing.which) for each in rounds]
        flat = np.array([[timing.clocks for timing in each] for each in ordered], dtype=float)
        clocks = flat.reshape(len(rounds), 2, 2, 4)
        ms = clocks[..., :3] / 1e6 / calls
        return _Samples(ms[..., 0], ms[..., 1], ms[..., 2], clocks[..., 3])

    def signs(self, watch: Watch, load: float, calls: int, *, waits: bool) -> NoiseReport:
        """Return what these timings and the machine tell of others' work."""
        whole = max(self.wall_RW2.sum(), 1e-12)
        asleep = 0.0 if waits else 1 - self.thread_RW2.sum() / whole
        longer_RW2 = self.wall_RW2 - np.median(self.wall_RW2, axis=(0, 2))[:, None]
        interrupted = longer_RW2[self.switches_RW2 > 0].clip(min=0).sum() / whole
        low, middle, high = np.quantile(_ratios(self.wall_RW2), (0.25, 0.5, 0.75))
        return NoiseReport(
            load_average=load,
            lost=float(max(0.0, asleep, interrupted)),
            crowded=None if waits else watch.crowded(torch.get_num_threads()),
            stolen=watch.stolen(),
            foreign=watch.foreign(),
            switches_per_s=float(self.switches_RW2.sum() / (whole * calls) * 1e3),
            dispersion=float((high - low) / middle),
        )

    def figures(self, confidence: float, rng: np.random.Generator) -> Figures:
        """Return all numbers."""
        return Figures(
            speedup=_speedup(self.wall_RW2, confidence, rng),
            cpu_speedup=_speedup(self.process_RW2, confidence, rng),
            dense=self._times(0),
            candidate=self._times(1),
        )

    def _times(self, which: int) -> Times:
        p50, p95, p99 = np.quantile(self.wall_RW2[:, which], (0.5, 0.95, 0.99))
        cpu_ms = np.median(self.process_RW2[:, which])
        return Times(float(p50), float(p95), float(p99), float(cpu_ms))


def _ratios(ms_RW2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``ratio_R``: dense over candidate, each the sum of a round's two timings."""
    dense_R, candidate_R = np.maximum(ms_RW2.sum(2), 1e-9).T
    return np.asarray(dense_R / candidate_R)


def _speedup(ms_RW2: NDArray[np.float64], confidence: float, rng: np.random.Generator) -> Interval:
    """Return the median of the rounds' ratios, with its interval."""
    ratio_R = _ratios(ms_RW2)
    drawn = rng.integers(0, len(ratio_R), (_RESAMPLES, len(ratio_R)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.median(ratio_R[drawn], axis=1), (tail, 1 - tail))
    return Interval(float(low), float(np.median(ratio_R)), float(high))

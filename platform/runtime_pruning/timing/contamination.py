"""Signs that a clock cannot be believed: somebody else used the processor meanwhile."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from runtime_pruning.config import NotNegative, config_class


class Reading(NamedTuple):
    """All clocks at one moment."""

    wall_ns: int
    thread_ns: int  # CPU time of the calling thread
    process_ns: int  # CPU time of all threads of the process
    switches: int  # times that the system took the processor away from the process


class Clock(Protocol):
    """Where times come from."""

    def read(self) -> Reading:
        """Return what all clocks show now."""
        ...

    def watch(self) -> "Watch":
        """Return a watch over the processors that the clocks are of."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def read(self) -> Reading:
        """Return what all clocks show now; takes about a microsecond."""
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        return Reading(
            time.perf_counter_ns(), time.thread_time_ns(), time.process_time_ns(), switches
        )

    def watch(self) -> "Watch":
        """Return a watch over the processors of this process."""
        return Watch()


@config_class
class Limits:
    """How much of each sign is put up with.

    Attributes:
        lost: share of the wall time in which the calling thread did not run, or by which timings
            exceeded their median when the system took the processor away: the larger, in [0, 1].
        crowded: by how much threads and other processes together exceed this process's
            processors, as a share of these.
        stolen: share of the processors' time that went to other virtual machines.
        dispersion: distance between the quartiles of the rounds' ratios, over their median.
    """

    lost: NotNegative = 0.05
    crowded: NotNegative = 0.1
    stolen: NotNegative = 0.05
    dispersion: NotNegative = 0.25


@dataclass(frozen=True)
class NoiseReport:
    """What was seen while measuring.

    Attributes:
        load_average: processes that wanted to run, mean over the last minute.
        lost: see `Limits`.
        crowded: see `Limits`; None where the system does not tell.
        stolen: see `Limits`; None where the system does not tell.
        foreign: share of the time of this process's processors that others used; None where the
            system does not tell. A note: there may be processors enough for all.
        switches_per_s: how often the system took the processor away; a note.
        dispersion: see `Limits`.
    """

    load_average: float
    lost: float
    crowded: float | None
    stolen: float | None
    foreign: float | None
    switches_per_s: float
    dispersion: float

    def reasons(self, limits: Limits) -> tuple[str, ...]:
        """Return why the clock cannot be believed, one sentence each; none if it can."""
        told = {
            "lost": "the wall clock ran on while the work did not",
            "crowded": "others left too few processors for this process's threads",
            "stolen": "other virtual machines used the processors",
            "dispersion": "rounds disagree about the ratio",
        }
        seen = {name: getattr(self, name) for name in told}
        return tuple(
            f"{why}: {name} {seen[name]:.2f} > {getattr(limits, name)}."
            for name, why in told.items()
            if seen[name] is not None and seen[name] > getattr(limits, name)
        )


class Watch:
    """Watches this process's processors from when it is made; ask it at the end.

    The system counts in ticks of 10 ms, so what lasted less than a second tells nothing.
    """

    def __init__(self) -> None:
        self._before = _ticks()
        self._process_s = time.process_time()

    def stolen(self) -> float | None:
        """Return the share of time that went to other virtual machines."""
        passed = self._passed()
        return None if passed is None else passed.stolen / passed.total

    def foreign(self) -> float | None:
        """Return the share of time that other processes used."""
        passed = self._passed()
        if passed is None:
            return None
        own = (time.process_time() - self._process_s) * os.sysconf("SC_CLK_TCK")
        return min(1.0, max(0.0, (passed.busy - own) / passed.total))

    def crowded(self, threads: int) -> float | None:
        """Return by how much this many threads and other processes exceed the processors."""
        foreign = self.foreign()
        if foreign is None:
            return None
        return max(0.0, foreign + min(1.0, threads / len(os.sched_getaffinity(0))) - 1)

    def _passed(self) -> "_Ticks | None":
        now = _ticks()
        if now is None or self._before is None:
            return None
        passed = _Ticks(*(late - early for late, early in zip(now, self._before, strict=True)))
        second = os.sysconf("SC_CLK_TCK") * len(os.sched_getaffinity(0))
        return passed if passed.total >= second else None


class _Ticks(NamedTuple):
    """Time of this process's processors, in the system's ticks."""

    busy: int
    stolen: int
    total: int


def load_average() -> float:
    """Return the mean number of runnable processes over the last minute."""
    return os.getloadavg()[0]


def _ticks() -> _Ticks | None:
    """Read the system's account of the processors that this process may use."""
    path = Path("/proc/stat")
    if not path.exists() or not hasattr(os, "sched_getaffinity"):
        return None
    own = {f"cpu{index}" for index in os.sched_getaffinity(0)}
    rows = [line.split() for line in path.read_text().splitlines()]
    counts = [[int(field) for field in row[1:9]] for row in rows if row and row[0] in own]
    if not counts or any(len(count) < 8 for count in counts):
        return None
    user, nice, system, idle, wait, irq, soft, steal = map(sum, zip(*counts, strict=True))
    busy = user + nice + system + irq + soft
    return _Ticks(busy, steal, busy + idle + wait + steal)

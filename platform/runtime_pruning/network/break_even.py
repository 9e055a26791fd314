"""Which mode pays, and how many images: measured on this device.

Dimensions: B images, L sites.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError

PLAN_TRIES = 40
AS_GOOD = 1.03  # times that are no further apart count as equal
IN_THE_RUNNING = 1.2  # times the least time: what a burst on the host may have hidden
SECOND_LOOK = 1.0  # seconds for what is in the running, at most


@dataclass(frozen=True)
class BreakEven:
    """Times of each mode, as ratios to dense, and the choice that follows.

    Attributes:
        threads: of PyTorch when it was measured.
        ratios: time over dense time, by (batch, MAC fraction), by mode.
    """

    threads: int
    ratios: Mapping[tuple[int, float], Mapping[str, float]]
    _chosen: dict[tuple[int, float, str | None], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _always: dict[tuple[int, str | None], str | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def always(self, batch: int, steady: str | None = None) -> str | None:
        """Return what `choose` returns whatever the fraction is; None: it matters."""
        key = (batch, steady)
        if key not in self._always:
            chosen = {self.choose(batch, percent / 100, steady) for percent in range(101)}
            self._always[key] = chosen.pop() if len(chosen) == 1 else None
        return self._always[key]

    def choose(self, batch: int, fraction: float, steady: str | None = None) -> str:
        """Return the fastest mode, or one that is to be taken where it is about as fast.

        The answer is kept, for fractions to a hundredth: it is asked for with each batch.
        """
        key = (batch, round(fraction, 2), steady)
        found = self._chosen.get(key)
        if found is None:
            modes = self.at(batch, key[1])
            found = min(modes, key=modes.__getitem__)
            if steady is not None and modes.get(steady, math.inf) <= AS_GOOD * modes[found]:
                found = steady
            self._chosen[key] = found
        return found

    def at(self, batch: int, fraction: float) -> dict[str, float]:
        """Return each mode's ratio at the nearest measured batch, in octaves.

        Between measured fractions it is interpolated; beyond them it is that of the last.
        """
        nearest = min({key[0] for key in self.ratios}, key=lambda b: abs(math.log2(b / batch)))
        rows = sorted((known, row) for (b, known), row in self.ratios.items() if b == nearest)
        fractions = [known for known, _ in rows]
        return {
            mode: float(np.interp(fraction, fractions, [row[mode] for _, row in rows]))
            for mode in rows[0][1]
        }

    def table(self) -> str:
        """Return the ratios as a Markdown table."""
        modes = sorted({mode for row in self.ratios.values() for mode in row})
        lines = [
            "| batch | MAC fraction | " + " | ".join(modes) + " | fastest |",
            "|---" * (len(modes) + 3) + "|",
        ]
        for (batch, fraction), row in sorted(self.ratios.items()):
            cells = [f"{row[mode]:.2f}" if mode in row else "" for mode in modes]
            fastest = min(row, key=row.__getitem__)
            lines.append(f"| {batch} | {fraction:.2f} | " + " | ".join(cells) + f" | {fastest} |")
        return "\n".join(lines)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    least_seconds: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Return seconds per call, a reading per round, all calls taking turns.

    Each reading repeats its call until ``least_seconds`` have passed, as one warm-up told.

    Args:
        calls: by name.
        rounds: readings per call.
        least_seconds: per reading.
        clock: in seconds; that of the thread's CPU time tells less of what runs beside.
        wait: returns when the device is done; None where a call returns no sooner.
    """

    def seconds_of(call: Callable[[], object], times: int) -> float:
        start = clock()
        for _ in range(times):
            call()
            if wait is not None:
                wait()
        return clock() - start

    repeats = {}
    for name, call in calls.items():
        seconds_of(call, 1)
        once = seconds_of(call, 1)
        repeats[name] = max(1, math.ceil(least_seconds / max(once, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        names = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for name in names:
            seconds[name].append(seconds_of(calls[name], repeats[name]) / repeats[name])
    return seconds


def compared(
    calls: Mapping[str, Callable[[], object]],
    base: str,
    *,
    rounds: int,
    least_seconds: float = 0.02,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], object] | None = None,
) -> dict[str, float]:
    """Return each call's least time over that of ``base``.

    Calls that may be the fastest are timed again, beside each other alone: bursts on the host last
    as long as a round.

    Args:
        calls: by name.
        base: one of them.
        rounds: readings per call; twice as many more of those that may be the fastest.
        least_seconds: per reading.
        clock: see `interleaved`.
        wait: likewise.
    """
    timed = partial(interleaved, least_seconds=least_seconds, clock=clock, wait=wait)
    seconds = timed(calls, rounds=rounds)
    least = {name: min(own) for name, own in seconds.items()}
    limit = IN_THE_RUNNING * min(least.values())
    running = [name for name, value in least.items() if value <= limit]
    beside = {name: call for name, call in calls.items() if name == base or name in running}
    turn = sum(max(least[name], least_seconds) for name in beside)
    more = min(2 * rounds, int(SECOND_LOOK / turn)) if turn and len(running) > 1 else 0
    if more:
        again = timed(beside, rounds=more)
        seconds |= {name: seconds[name] + own for name, own in again.items()}
    return ratio_to(seconds, base)


def fastest_part(
    run: Callable[[int], object],
    batch: int,
    *,
    turns: int = 2,
    longest: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Return how many images of a batch are best run together.

    Feature maps of a whole batch may leave the caches, and be so large that the system hands their
    memory out, and clears it, anew each time. Of sizes that are as good, the largest is returned.

    Args:
        run: runs so many images.
        batch: the most.
        turns: timed, per size, after one that warms up; sizes are doubled from one. Those that may
            be the fastest have twice as many more, beside each other.
        longest: seconds; no larger size is tried than the first that takes longer.
        clock: in seconds.
    """
    per_image: dict[int, float] = {}

    def time_of(size: int) -> None:
        start = clock()
        run(size)
        seconds = (clock() - start) / size
        per_image[size] = min(per_image.get(size, math.inf), seconds)

    size = 1
    while True:
        run(size)
        for _ in range(turns):
            time_of(size)
        if size == batch or per_image[size] * size > longest:
            break
        size = min(2 * size, batch)
    limit = IN_THE_RUNNING * min(per_image.values())
    running = [size for size, seconds in per_image.items() if seconds <= limit]
    turn = sum(size * per_image[size] for size in running)
    for _ in range(min(2 * turns, int(longest / turn)) if len(running) > 1 else 0):
        for size in running:
            time_of(size)
    least = min(per_image.values())
    return max(size for size, seconds in per_image.items() if seconds <= AS_GOOD * least)


def check_batch(batch: int, images: int) -> None:
    """Raise unless a batch can be cut from so many images."""
    if not 1 <= batch <= images:
        raise ConfigError(f"`1 <= batch <= images` must hold, but got {batch} and {images}.")


def run_parts(run: Callable[[Tensor], object], parts: Sequence[Tensor]) -> None:
    """Run all parts of some images."""
    for part in parts:
        run(part)


def ratio_to(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Return each call's least time over the base's: what runs beside only ever takes more."""
    least = {name: min(own) for name, own in seconds.items()}
    return {name: own / least[base] for name, own in least.items()}


def plans_near(
    fraction_of: Callable[[tuple[int, ...]], float],
    *,
    sites: int,
    groups: int,
    fraction: float,
    batch: int,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Return random plans whose MACs are about a fraction of the dense ones.

    Counts are drawn around a level that is moved until the mean fits; each image takes, of a few
    draws, the one that is nearest.
    """
    low, high = 0.0, 1.0
    for _ in range(12):
        level = (low + high) / 2
        drawn = [_draw(level, sites, groups, generator) for _ in range(PLAN_TRIES)]
        mean = statistics.fmean(fraction_of(plan) for plan in drawn)
        low, high = (level, high) if mean < fraction else (low, level)
    plans = []
    for _ in range(batch):
        drawn = [_draw(level, sites, groups, generator) for _ in range(8)]
        plans.append(min(drawn, key=lambda plan: abs(fraction_of(plan) - fraction)))
    return plans


def _draw(level: float, sites: int, groups: int, generator: torch.Generator) -> tuple[int, ...]:
    """Return a plan; 0 is the least everywhere, 1 the most, between them each site varies."""
    spread = min(level, 1 - level)
    noise_L = (torch.rand(sites, generator=generator) * 2 - 1) * spread
    counts_L = ((level + noise_L) * (groups - 1)).round().long() + 1
    return tuple(counts_L.clamp(1, groups).tolist())

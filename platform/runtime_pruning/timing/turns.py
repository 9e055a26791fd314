"""Calls timed in turns: the least time of each, beside each other in one process."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

AnyCall = TypeVar("AnyCall", bound=Callable[..., Any])

TIE_RATIO = 1.03  # times that are no further apart count as equal
CONTENDER_RATIO = 1.2  # times the least time: what a burst on the host may have hidden
RETIMING_SECONDS = 1.0  # seconds for what is in the running, at most


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
    limit = CONTENDER_RATIO * min(least.values())
    running = [name for name, value in least.items() if value <= limit]
    beside = {name: call for name, call in calls.items() if name == base or name in running}
    turn = sum(max(least[name], least_seconds) for name in beside)
    more = min(2 * rounds, int(RETIMING_SECONDS / turn)) if turn and len(running) > 1 else 0
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
    limit = CONTENDER_RATIO * min(per_image.values())
    running = [size for size, seconds in per_image.items() if seconds <= limit]
    turn = sum(size * per_image[size] for size in running)
    for _ in range(min(2 * turns, int(longest / turn)) if len(running) > 1 else 0):
        for size in running:
            time_of(size)
    least = min(per_image.values())
    return max(size for size, seconds in per_image.items() if seconds <= TIE_RATIO * least)


def ratio_to(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Return each call's least time over the base's: what runs beside only ever takes more."""
    least = {name: min(own) for name, own in seconds.items()}
    return {name: own / least[base] for name, own in least.items()}


TURNS = (3, 12)  # timed turns of each kind of call, at least and at most
ENOUGH = 0.01  # seconds; no more turns after these than at least


def fastest(
    calls: Sequence[AnyCall],
    *inputs: object,
    wait: Callable[[], object] | None = None,
    head_start: Sequence[float] = (),
) -> AnyCall:
    """Return the call that takes the least time on these inputs, of a few turns each.

    Args:
        calls: that do the same.
        inputs: of each call.
        wait: returns when the device is done; None where a call returns no sooner.
        head_start: seconds that are taken off each call's time; none by default.
    """
    if len(calls) == 1:
        return calls[0]
    best = best_seconds(calls, *inputs, wait=wait)
    if head_start:
        best = [seconds - off for seconds, off in zip(best, head_start, strict=True)]
    return calls[best.index(min(best))]


def best_seconds(
    calls: Sequence[Callable[..., object]],
    *inputs: object,
    wait: Callable[[], object] | None = None,
) -> list[float]:
    """Return the least time that each call took, of a few turns; see `fastest`."""
    best = [math.inf] * len(calls)
    begun = time.perf_counter()
    for turn in range(TURNS[1] + 1):  # the first warms up
        if turn > TURNS[0] and time.perf_counter() - begun > ENOUGH * len(calls):
            break
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call(*inputs)
            if wait is not None:
                wait()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return best

"""Methods side by side: what each reaches within a budget, and in which order they come.

Dimensions: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.timings import PointTiming, Timings

BUDGETS = (0.3, 0.5, 0.7)  # of the dense network's MACs, or of its time


@dataclass(frozen=True, kw_only=True)
class Place:
    """What one method reaches within a budget.

    Attributes:
        method: its name, or that of its sweep.
        point: its most accurate point within the budget; None where it has none.
        rank: from 1, methods that are equally accurate sharing one; None without a point.
    """

    method: str
    point: OperatingPoint | None
    rank: int | None


def ranked_by_macs(methods: Mapping[str, Sequence[OperatingPoint]], budget: float) -> list[Place]:
    """Return the methods by the accuracy that they reach at most at so many of the dense MACs."""
    within = {
        name: [point for point in points if point.macs_fraction <= budget]
        for name, points in methods.items()
    }
    return _ranked(within)


def ranked_by_time(
    methods: Mapping[str, Sequence[OperatingPoint]], timings: Timings, budget: float, batch: int
) -> list[Place]:
    """Return the methods by the accuracy that they reach in so much of the dense network's time.

    Points that were not timed at that size of batch, or whose clock could not be believed, do not
    count.
    """
    within = {
        name: [p for p in points if _fits(timings.get(p.point_id, ()), budget, batch)]
        for name, points in methods.items()
    }
    return _ranked(within)


def _fits(timings: Sequence[PointTiming], budget: float, batch: int) -> bool:
    """Whether one of a point's timings is within a share of the dense network's time."""
    return any(
        timing.batch == batch and timing.speedup is not None and 1 / timing.speedup[1] <= budget
        for timing in timings
    )


def _ranked(within: Mapping[str, Sequence[OperatingPoint]]) -> list[Place]:
    """Return the methods in order of the best of their points; those without one come last."""
    best = {
        name: max(points, key=lambda point: (point.accuracy, -point.macs_fraction), default=None)
        for name, points in within.items()
    }
    reached = {name: point.accuracy for name, point in best.items() if point is not None}
    places = [
        Place(
            method=name,
            point=best[name],
            rank=None
            if name not in reached
            else 1 + sum(other > reached[name] for other in reached.values()),
        )
        for name in within
    ]
    return sorted(places, key=lambda place: (place.rank or len(places) + 1, place.method))


def ranking_table(
    methods: Mapping[str, Sequence[OperatingPoint]], timings: Timings, batches: Sequence[int]
) -> str:
    """Return a Markdown table: a row per method, its best accuracy and rank at each budget.

    The last column is what the method has cost to train and search, in hours of one process.
    """
    by_column = {f"{budget:.0%} of MACs": ranked_by_macs(methods, budget) for budget in BUDGETS} | {
        f"{budget:.0%} of time, batch {batch}": ranked_by_time(methods, timings, budget, batch)
        for batch in batches
        for budget in BUDGETS
    }
    titles = ["method", *by_column, "hours"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for name, points in sorted(methods.items()):
        cells = [
            _cell(next(place for place in places if place.method == name))
            for places in by_column.values()
        ]
        lines.append(f"| {' | '.join([name, *cells, f'{hours_of(points):.2f}'])} |")
    return "\n".join(lines)


def hours_of(points: Sequence[OperatingPoint]) -> float:
    """Return the hours that points have cost: of each trial, up to its last point."""
    last: dict[str, float] = {}
    for point in points:
        last[point.trial_key] = max(last.get(point.trial_key, 0.0), point.train_seconds)
    return sum(last.values()) / 3600


def _cell(place: Place) -> str:
    """Return what a method reaches; nothing where it has no point within the budget."""
    return "" if place.point is None else f"{place.point.accuracy:.2%} ({place.rank}.)"

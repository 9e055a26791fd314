"""Who goes on by thresholds: one number per member, on the confidence of the combined answer.

An image goes on from a member to the next while the likeliest class's combined probability is
below the member's threshold. Source: Wang et al., "Wisdom of Committees", ICLR 2022, with the
answers of all that ran combined.

Dimensions: N images, B images that are open, F features, T stages of one order of members, G
values of a threshold, C cascades.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pruning_envs import CascadeTable
from runtime_pruning.cascades.choosing import STOP, Ints, judge
from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.dominance import pareto_mask

CANDIDATES = 4096  # cascades that are tried for each order of members


@dataclass(frozen=True)
class ThresholdChooser:
    """Members in an order, and below which confidence an image goes on from each but the last.

    Attributes:
        order: members that may run, the first on every image.
        thresholds: probabilities, one fewer than members in the order.
    """

    order: tuple[int, ...]
    thresholds: tuple[float, ...]

    macs_per_image = 0  # a comparison

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) < len(self.order) or min(self.order) < 0:
            raise ConfigError(f"`order` must name members, each once, but got {self.order}.")
        if len(self.thresholds) != len(self.order) - 1:
            raise ConfigError(
                f"{len(self.order) - 1} thresholds are needed, but got {self.thresholds}."
            )
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ConfigError(f"`0 <= threshold <= 1` must hold, but got {self.thresholds}.")

    def after(self, number: int, confidence: float) -> int:
        """Return the action for one image, of which a set of members has run."""
        for stage, threshold in enumerate(self.thresholds):
            if number == _set_of(self.order[: stage + 1]) and confidence < threshold:
                return self.order[stage + 1] + 1
        return STOP if number else self.order[0] + 1

    def actions(self, features_BF: npt.NDArray[np.float32], sets_B: Ints) -> Ints:
        """Return ``action_B``; see `Chooser`."""
        return self.by_confidence(np.exp(features_BF[:, 0].astype(np.float64)), sets_B)

    def by_confidence(self, confidence_B: npt.NDArray[np.float64], sets_B: Ints) -> Ints:
        """Return ``action_B``; all that it looks at is the likeliest class's probability."""
        actions_B = np.where(sets_B == 0, self.order[0] + 1, STOP)
        for stage, threshold in enumerate(self.thresholds):
            here_B = sets_B == _set_of(self.order[: stage + 1])
            actions_B[here_B & (confidence_B < threshold)] = self.order[stage + 1] + 1
        return actions_B


# A chooser with its accuracy and cost on a table.
Judged: TypeAlias = tuple[ThresholdChooser, float, float]


def search_thresholds(table: CascadeTable, *, points: int = 64) -> list[ThresholdChooser]:
    """Return the cascades that no other beats on a table, cheapest first: the whole curve.

    All orders of members as they stand, some left out, are tried, and for each a grid of
    thresholds at quantiles of the confidence.

    Args:
        table: of the policy split.
        points: at most so many, spread evenly over the cost.

    Raises:
        ConfigError: fewer than two points.
    """
    if points < 2:
        raise ConfigError(f"`points >= 2` must hold, but got {points}.")
    tried = [each for order in _orders(table.num_members) for each in _tried(table, order)]
    return [chooser for chooser, *_ in _spread(_front(tried), points)]


def best_of(choosers: Sequence[ThresholdChooser], table: CascadeTable) -> list[Judged]:
    """Return the choosers that no other beats on a table (the validation split's), cheapest first.

    Returns:
        Each with its accuracy and cost there.
    """
    outcomes = [(chooser, judge(table, chooser)) for chooser in choosers]
    return _front([(chooser, outcome.accuracy, outcome.cost) for chooser, outcome in outcomes])


def _front(found: Sequence[Judged]) -> list[Judged]:
    """Return what no other beats, cheapest first, and the first of equals."""
    loss_CD = np.array([[1 - accuracy, cost] for _, accuracy, cost in found])
    by_cost: dict[float, Judged] = {}
    for row in np.flatnonzero(pareto_mask(loss_CD)).tolist():
        by_cost.setdefault(found[row][2], found[row])
    return sorted(by_cost.values(), key=lambda each: each[2])


def _orders(members: int) -> Iterator[tuple[int, ...]]:
    """Yield members in their order, any but the last of all left out."""
    for size in range(1, members + 1):
        yield from itertools.combinations(range(members), size)


def _tried(table: CascadeTable, order: tuple[int, ...]) -> Iterator[Judged]:
    """Yield the grid's cascades of one order, each with its accuracy and cost."""
    rows_N = np.arange(len(table))
    stages = len(order)
    sets = [_set_of(order[: stage + 1]) for stage in range(stages)]
    answers = [table.combined(rows_N, np.full_like(rows_N, number)) for number in sets]
    correct_TN = np.stack([answer.argmax(axis=1) == table.labels_N for answer in answers])
    confidence_TN = np.exp(np.stack([answer.max(axis=1) for answer in answers]).astype(np.float64))
    cost_TN = np.cumsum(table.costs_NM[:, list(order)].T.astype(np.float64), axis=0)
    values = _grid(confidence_TN[:-1])
    passes = [
        value_G[:, None] > row_N for value_G, row_N in zip(values, confidence_TN, strict=False)
    ]
    for places in itertools.product(*(range(len(value_G)) for value_G in values)):
        last_N = np.zeros(len(table), np.int64)
        open_N = np.ones(len(table), np.bool_)
        for stage, place in enumerate(places):
            open_N = open_N & passes[stage][place]
            last_N += open_N
        thresholds = tuple(float(values[stage][place]) for stage, place in enumerate(places))
        accuracy, cost = correct_TN[last_N, rows_N].mean(), cost_TN[last_N, rows_N].mean()
        yield ThresholdChooser(order, thresholds), float(accuracy), float(cost)


def _grid(confidence_TN: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Return values of each threshold: quantiles of the confidence, so that few choices repeat."""
    if not len(confidence_TN):
        return []
    count = max(3, int(CANDIDATES ** (1 / len(confidence_TN))))
    # Few images go on in a cascade worth having: the low quantiles lie closer together.
    shares_G = np.linspace(0, 1, min(count, 256) + 2)[1:-1] ** 2
    return [np.unique(np.quantile(row_N, shares_G)) for row_N in confidence_TN]


def _set_of(members: Sequence[int]) -> int:
    """Return the number of a set of members."""
    return sum(1 << member for member in members)


def _spread(found: list[Judged], points: int) -> list[Judged]:
    """Return at most so many, evenly over their cost, both ends among them."""
    if len(found) <= points:
        return found
    cost_C = np.array([cost for *_, cost in found])
    wanted = np.linspace(cost_C[0], cost_C[-1], points)
    rows = np.unique([int(np.abs(cost_C - cost).argmin()) for cost in wanted])
    return [found[row] for row in rows]

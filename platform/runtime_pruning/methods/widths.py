"""How wide each group of channels is to be, so that a network costs what it may.

Dimensions: C channels, G groups.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

from runtime_pruning.cost.predictor import WidthCost
from runtime_pruning.errors import ConfigError
from runtime_pruning.network.surgery import PrunableGroup

# From a share in [0, 1] to widths: more share, no group narrower.
Family: TypeAlias = Callable[[float], list[int]]

_HALVINGS = 24


def uniform(groups: Sequence[PrunableGroup], multiple: int) -> Family:
    """Return the widths at which each group has the same share of its channels.

    Args:
        groups: of a backbone.
        multiple: widths are multiples of this, or whole.
    """
    return lambda share: [allowed(share * g.channels, g.channels, multiple) for g in groups]


def ranked(
    groups: Sequence[PrunableGroup],
    scores: Mapping[str, Tensor],
    multiple: int,
    least: float,
) -> Family:
    """Return the widths at which the highest scores of all groups together stay.

    Args:
        groups: of a backbone.
        scores: ``scores_C`` by group, comparable between groups.
        multiple: widths are multiples of this, or whole.
        least: share of a group's channels that stays at least.
    """
    descending = np.sort(np.concatenate([scores[g.name].numpy() for g in groups]))[::-1]

    def widths(share: float) -> list[int]:
        count = round(share * len(descending))
        bar = np.inf if count == 0 else descending[count - 1]
        above = [int((scores[g.name].numpy() >= bar).sum()) for g in groups]
        return [
            allowed(max(count, least * g.channels), g.channels, multiple)
            for count, g in zip(above, groups, strict=True)
        ]

    return widths


def allowed(width: float, channels: int, multiple: int) -> int:
    """Return the nearest multiple to a width, at least one of them, at most all channels."""
    return min(channels, max(1, round(width / multiple)) * multiple)


def widest_within(cost: WidthCost, budget: float, family: Family) -> list[int]:
    """Return the widest member of a family that costs no more than a budget.

    Args:
        cost: of widths.
        budget: in the cost's own unit.
        family: of widths.

    Raises:
        ConfigError: even the narrowest costs more.
    """
    if (narrowest := cost(family(0.0))) > budget:
        raise ConfigError(
            f"The narrowest network costs {narrowest / cost.dense:.3f} of the dense one, so a "
            f"share of {budget / cost.dense:.3f} cannot be reached: ask for more, or let fewer "
            "channels stay at least."
        )
    low, high = 0.0, 1.0
    if cost(family(high)) <= budget:
        return family(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(family(middle)) <= budget else (low, middle)
    return family(low)


def best_channels(scores_C: Tensor, width: int) -> list[int]:
    """Return the channels of the highest scores, in ascending order; of equal ones the first."""
    order = scores_C.sort(descending=True, stable=True).indices[:width]
    return sorted(order.tolist())

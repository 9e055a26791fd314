"""The fixed widths one after the other by a threshold: one number that looks at the image, too.

Nothing runs for it: thresholds are chosen, and judged, on the answers that records of the fixed
widths hold. Calibration, weights and thresholds come from the policy split.

Dimensions: C cascades.
"""

from collections.abc import Sequence

import numpy as np

from runtime_pruning.cascades import (
    align,
    cascade_record,
    fit_combination,
    judge,
    search_thresholds,
)
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import Record

MEMBERS = 5  # of more widths than these, so many, evenly
CHOICES = 256  # cascades, cheapest to dearest, from which the nearest are taken
NEAREST = 2  # on either side of the budget


def threshold_records(
    learned: Sequence[Record], held_out: Sequence[Record], budget: float
) -> list[Record]:
    """Return what the cascades nearest to a budget, on either side, do to held-out images.

    Args:
        learned: of the fixed widths on the policy split, cheapest first.
        held_out: of the same widths on the images in question.
        budget: MACs per image.

    Raises:
        DataError: records without answers, of other images, or not of the same widths.
    """
    if len(learned) != len(held_out) or not learned:
        raise DataError(
            "A threshold needs each fixed width's record of both splits, but got "
            f"{len(learned)} and {len(held_out)}."
        )
    places = np.unique(np.linspace(0, len(learned) - 1, MEMBERS).round().astype(int))
    known = align([learned[place] for place in places])
    members = [held_out[place] for place in places]
    combination = fit_combination(known)
    choosers = search_thresholds(combination.table(known, 1.0), points=CHOICES)
    table = combination.table(known, 1.0)
    cost_C = np.array([judge(table, each).cost for each in choosers])
    above = int(np.searchsorted(cost_C, budget))
    nearest = choosers[max(above - NEAREST, 0) : above + NEAREST]
    return [cascade_record(members, combination, chooser) for chooser in nearest]

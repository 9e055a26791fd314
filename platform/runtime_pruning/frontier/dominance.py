"""Which points no other beats, and how much they cover.

Objectives get a direction once, in :func:`losses_of`; from there on everything is minimised.
Dimensions: P points, K objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import Bools

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The declared worst corner that hypervolume is measured from.

    Declared, not estimated: hypervolumes of different sweeps compare only if it is the same.
    """

    accuracy: float = 0.0
    macs_fraction: float = 1.1

    @property
    def losses_K(self) -> Doubles:
        """The corner as losses: error rate, share of the dense MACs."""
        return np.array([1.0 - self.accuracy, self.macs_fraction])


def losses_of(points: Sequence[OperatingPoint]) -> Doubles:
    """Return ``losses_PK``: error rate and share of the dense MACs, both to be minimised."""
    rows = [(1.0 - point.accuracy, point.macs_fraction) for point in points]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def pareto_mask(losses_PK: npt.ArrayLike) -> Bools:
    """Return ``on_front_P``: True where no other point is as good on all K and better on one.

    Equal points share the front. A point with a loss that is not finite is never on it, nor does
    it beat another. Time and memory are O(P K) per point of the front.
    """
    losses = np.asarray(losses_PK, dtype=np.float64)
    on_front_P: Bools = np.array(np.isfinite(losses).all(axis=1))
    # In this order a point can be beaten by earlier ones only.
    for p in np.lexsort(losses.T[::-1]):
        if on_front_P[p]:
            no_worse_P = (losses >= losses[p]).all(axis=1)
            on_front_P &= ~(no_worse_P & (losses > losses[p]).any(axis=1))
    return on_front_P


def front_mask(points: Sequence[OperatingPoint]) -> Bools:
    """Return ``on_front_P``: True where no other point beats one, on figures that may choose.

    A point whose network has seen the images is on no front beside points that have not, and beats
    none of them. Where all have seen them, nothing is chosen: the front is that of all, as shown.
    """
    losses_P2 = losses_of(points)
    may_P = np.array([point.chooses for point in points], dtype=bool)
    if may_P.any():
        losses_P2[~may_P] = np.inf
    return pareto_mask(losses_P2)


def hypervolume(losses_PK: npt.ArrayLike, reference_K: npt.ArrayLike) -> float:
    """Return the volume that the points dominate, up to the reference corner.

    Two objectives: the staircase under the sorted front. Three: slices along the third objective,
    each a two-dimensional problem, O(P^2 log P). Points beyond the corner add nothing.

    Raises:
        ConfigError: K is neither 2 nor 3, or the corner has another K.
    """
    losses = np.asarray(losses_PK, dtype=np.float64)
    reference = np.asarray(reference_K, dtype=np.float64)
    if losses.ndim != 2 or losses.shape[1] not in (2, 3) or reference.shape != losses.shape[1:]:
        raise ConfigError(
            "Hypervolume takes P points of 2 or 3 objectives and a corner of as many, "
            f"but got shapes {losses.shape} and {reference.shape}."
        )
    inside = losses[(losses < reference).all(axis=1) & np.isfinite(losses).all(axis=1)]
    if losses.shape[1] == 2:
        return _area(inside, reference)
    order = np.argsort(inside[:, 2], kind="stable")
    inside = inside[order]
    depths = np.diff(np.append(inside[:, 2], reference[2]))
    return float(
        sum(_area(inside[: p + 1, :2], reference[:2]) * d for p, d in enumerate(depths) if d > 0)
    )


def _area(losses_P2: Doubles, reference_2: Doubles) -> float:
    """Return the area of the staircase between points inside the corner and the corner."""
    if not len(losses_P2):
        return 0.0
    by_x = losses_P2[np.lexsort((losses_P2[:, 1], losses_P2[:, 0]))]
    best_y = np.minimum.accumulate(by_x[:, 1])
    widths = np.diff(np.append(by_x[:, 0], reference_2[0]))
    return float((widths * (reference_2[1] - best_y)).sum())

"""A frontier in one value: points, who is on it, how sure that is, and what it covers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dominance import (
    Doubles,
    Reference,
    front_mask,
    hypervolume,
    losses_of,
)
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Proof, Proofs
from runtime_pruning.frontier.records import Bools
from runtime_pruning.frontier.timings import Timings
from runtime_pruning.frontier.uncertainty import (
    Evidence,
    Interval,
    accuracy_interval,
    attained_band,
    probability_on_front,
    resample,
)

# The method of the unpruned network's point, which every loss of accuracy refers to.
DENSE = "dense"


@dataclass(frozen=True)
class FrontierSummary:
    """The frontier of points on one dataset's held-out images.

    Attributes:
        points: P points in ascending order of executed MACs.
        on_front_P: where no other point beats one; or, on other images than those that chose the
            front, which points it holds.
        accuracy: interval of each point's accuracy.
        probability_P: share of redraws of the images in which a point is on the front.
        band: interval of the accuracy that a budget buys, at the front's F points.
        hypervolume: area dominated, from the reference's corner.
        reference: that corner.
        level: coverage of the intervals.
        proofs: whether decisions depend on the image, of the points that were tried for it.
        timings: how fast points are, of those that were timed.
    """

    points: tuple[OperatingPoint, ...]
    on_front_P: Bools
    accuracy: Interval = field(repr=False)
    probability_P: Doubles = field(repr=False)
    band: Interval = field(repr=False)
    hypervolume: float
    reference: Reference
    level: float
    proofs: Proofs = field(default_factory=dict)
    timings: Timings = field(default_factory=dict)

    @property
    def dense(self) -> OperatingPoint | None:
        """The unpruned network's point, if it is among them; of several the dearest."""
        return next((point for point in reversed(self.points) if point.method == DENSE), None)

    def proof_of(self, point: OperatingPoint) -> Proof | None:
        """Return a point's proof, if it was tried for one."""
        return self.proofs.get(point.point_id)

    @property
    def front(self) -> tuple[OperatingPoint, ...]:
        """The points on the front, ascending cost."""
        pairs = zip(self.points, self.on_front_P, strict=True)
        return tuple(point for point, on_front in pairs if on_front)


def summarise(
    points: Sequence[OperatingPoint],
    evidence: Sequence[Evidence],
    *,
    reference: Reference,
    chosen: Collection[str] | None = None,
    proofs: Proofs | None = None,
    timings: Timings | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> FrontierSummary:
    """Return the frontier that points and their evidence draw.

    Args:
        points: at least one, all of one dataset, split and dense cost.
        evidence: of the same points, in the same order.
        reference: corner of the hypervolume.
        chosen: ids of the points that are the front, where other images chose it; they are shown as
            chosen. None: those that no other beats on these images.
        proofs: by point id, of the same split; those of other points are left out.
        timings: by point id; likewise.
        replicates: redraws of the images.
        level: coverage of the intervals.
        seed: of the redraws.

    Raises:
        DataError: no points, points that may not share a frontier, or none of the chosen ones.
    """
    _check_comparable(points)
    pairs = sorted(
        zip(points, evidence, strict=True),
        key=lambda pair: (pair[0].macs_fraction, -pair[0].accuracy, pair[0].point_id),
    )
    ordered = [point for point, _ in pairs]
    redrawn = resample(
        [facts for _, facts in pairs], replicates=replicates, rng=np.random.default_rng(seed)
    )
    accuracy = accuracy_interval([facts for _, facts in pairs], level)
    known, timed = proofs or {}, timings or {}
    losses_P2 = losses_of(ordered)
    on_front_P = front_mask(ordered)
    if chosen is not None:
        on_front_P = np.array([point.point_id in chosen for point in ordered])
        if not on_front_P.any():
            raise DataError("None of the points that were chosen is among those measured.")
    return FrontierSummary(
        points=tuple(ordered),
        on_front_P=on_front_P,
        accuracy=accuracy,
        probability_P=probability_on_front(redrawn),
        band=attained_band(Interval(*(ends_P[on_front_P] for ends_P in accuracy))),
        hypervolume=hypervolume(losses_P2[on_front_P], reference.losses_K),
        reference=reference,
        level=level,
        proofs={p.point_id: known[p.point_id] for p in ordered if p.point_id in known},
        timings={p.point_id: timed[p.point_id] for p in ordered if p.point_id in timed},
    )


def _check_comparable(points: Sequence[OperatingPoint]) -> None:
    """Raise unless there are points and all are of one dataset, split and dense cost."""
    kinds = {(p.dataset, p.split, p.dense_macs) for p in points}
    if len(kinds) != 1:
        raise DataError(
            "Points of one frontier must share dataset, split and dense MACs, "
            f"but got {sorted(kinds)}."
        )

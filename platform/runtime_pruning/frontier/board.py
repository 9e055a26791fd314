"""A frontier that grows: points as they come in, and the report of them when it is asked for.

Of a record it keeps what the bootstrap needs, so that no record is read for a drawing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runtime_pruning.frontier.details import Details
from runtime_pruning.frontier.dominance import Reference, front_mask, hypervolume, losses_of
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Proof
from runtime_pruning.frontier.replicates import first_known, pool, pool_evidence
from runtime_pruning.frontier.report import Report, draw_report
from runtime_pruning.frontier.showing import Extra, Extras, Setting, Tested, Thumbnails
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.frontier.uncertainty import Evidence


class Board:
    """Points with their evidence, proofs, timings, and what else a page shows of them.

    Args:
        reference: corner of the hypervolume.
        pictures: of the images that the points were measured on; None where they are not at hand.
    """

    def __init__(self, reference: Reference, pictures: Thumbnails | None = None) -> None:
        self.reference = reference
        self.setting = Setting()
        self._pictures = pictures
        self._extras: dict[str, Extra] = {}
        self._points: dict[str, tuple[OperatingPoint, Evidence]] = {}
        self._proofs: dict[str, Proof] = {}
        self._timings: dict[str, list[PointTiming]] = {}
        self._drawn = 0
        self.version = 0  # counts what has come

    def __len__(self) -> int:
        """Return how many points there are."""
        return len(self._points)

    def __contains__(self, point_id: str) -> bool:
        """Whether a point of that id is there."""
        return point_id in self._points

    def add(
        self, point: OperatingPoint, evidence: Evidence, details: Details | None = None
    ) -> None:
        """Take in a point; a later one of the same id takes its place."""
        self._points[point.point_id] = point, evidence
        self._note(point.point_id, details=details)

    def replace(self, point: OperatingPoint) -> None:
        """Put a point in the place of itself, told otherwise; its evidence stays."""
        _, evidence = self._points[point.point_id]
        self._points[point.point_id] = point, evidence
        self.version += 1

    def point(self, point_id: str) -> OperatingPoint:
        """Return the point of that id, which must be there."""
        return self._points[point_id][0]

    def add_run(self, point_id: str, run_path: str) -> None:
        """Take in where a point's run is, behind the server's address."""
        self._note(point_id, run_path=run_path)

    def add_test(self, point_id: str, tested: Tested) -> None:
        """Take in what a chosen point does to the test split."""
        self._note(point_id, tested=tested)

    def add_prediction(self, point_id: str, predicted_ms: Mapping[str, float]) -> None:
        """Take in what a latency table predicts of a point, by device, batch and quantile."""
        self._note(point_id, predicted_ms=predicted_ms)

    def _note(
        self, point_id: str, **known: Details | Tested | str | Mapping[str, float] | None
    ) -> None:
        """Keep what a page shows of a point."""
        self._extras[point_id] = replace(self._extras.get(point_id, Extra()), **known)  # type: ignore[arg-type]
        self.version += 1

    def add_proof(self, point_id: str, proof: Proof) -> None:
        """Take in what a point's controls show, on validation."""
        self._proofs[point_id] = proof
        self.version += 1

    def add_timings(self, point_id: str, timings: Sequence[PointTiming]) -> None:
        """Take in how fast a point is; timings of other devices and batches stay."""
        new = {(timing.device, timing.batch) for timing in timings}
        known = self._timings.get(point_id, [])
        kept = [timing for timing in known if (timing.device, timing.batch) not in new]
        self._timings[point_id] = [*kept, *timings]
        self.version += 1

    @property
    def extras(self) -> Extras:
        """What a page shows of points beside their figures, by point id."""
        return self._extras

    @property
    def timings(self) -> Mapping[str, Sequence[PointTiming]]:
        """How fast points are, by point id."""
        return self._timings

    @property
    def points(self) -> list[OperatingPoint]:
        """All points, as they came."""
        return [point for point, _ in self._points.values()]

    def on_front(self) -> Mapping[str, bool]:
        """Return, by point id, whether no other point beats one; replicates stand by their mean."""
        if not self._points:
            return {}
        pooled = pool(self.points)
        mask = front_mask([each.point for each in pooled]).tolist()
        return {id_: stays for each, stays in zip(pooled, mask, strict=True) for id_ in each.ids}

    def hypervolume(self) -> float:
        """Return the area that the points dominate; at least one must be there."""
        pooled = [each.point for each in pool(self.points)]
        return hypervolume(losses_of(pooled), self.reference.losses_K)

    @property
    def is_drawn(self) -> bool:
        """Whether the last report shows all that has come."""
        return self._drawn == self.version

    def draw(self, folder: Path) -> Report:
        """Write page, picture and table to a folder.

        Raises:
            DataError: no points, or points that may not share a frontier.
        """
        self._drawn = self.version  # what cannot be drawn is not tried again
        pooled = pool(self.points)
        return draw_report(
            [
                (each.point, pool_evidence([self._points[id_][1] for id_ in each.ids]))
                for each in pooled
            ],
            folder,
            reference=self.reference,
            proofs=first_known(pooled, self._proofs),
            timings=first_known(pooled, self._timings),
            extras=self._extras,
            setting=self.setting,
            pictures=self._pictures,
        )

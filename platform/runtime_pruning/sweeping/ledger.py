"""The driver's book of points: each one goes to the tracker and becomes a line on the terminal.

What a point amounts to was computed where it was measured. Here nothing is derived, so that Tune,
which calls from its event loop, does not wait.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from runtime_pruning.frontier.dominance import front_mask
from runtime_pruning.frontier.explanation import read_explanation
from runtime_pruning.frontier.points import OperatingPoint, trial_key
from runtime_pruning.frontier.proof import Proof
from runtime_pruning.frontier.records import HeldOut
from runtime_pruning.frontier.replicates import pool
from runtime_pruning.frontier.style import gain_text
from runtime_pruning.frontier.summary import DENSE
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.glossary import BUNDLE, CURVES, POLICY_RECORD, RECORD, TEST_RECORD, TIMINGS
from runtime_pruning.sweeping.proving import FIXED_WIDTH, FOLDERS
from runtime_pruning.sweeping.reports import read_point
from runtime_pruning.sweeping.trial import read_test_point
from runtime_pruning.tracking.mlflow_store import FrontierTracker, Status


class Ledger:
    """Writes points to the tracker, once each, and says what the frontier is so far.

    Args:
        tracker: an open sweep's; the only writer.
        method: that is swept.
    """

    def __init__(self, tracker: FrontierTracker, method: str) -> None:
        self._tracker = tracker
        self._method = method
        self._started = time.monotonic()
        self._points: dict[str, OperatingPoint] = {}
        self._folders: dict[str, Path] = {}
        self._started_trials: set[str] = set()
        self._test_accuracy: dict[str, float] = {}
        self._timings: dict[str, list[PointTiming]] = {}
        self._proofs: dict[HeldOut, dict[str, Proof]] = {"validation": {}, "test": {}}

    def start_trial(self, config: dict[str, Any]) -> None:
        """Take note that the trial of a configuration has started, unless it is known."""
        key = trial_key(config)
        if key not in self._started_trials:
            self._started_trials.add(key)
            self._tracker.start_trial(key, config)

    def end_trial(
        self, config: dict[str, Any], error: str | None = None, infeasible: str = ""
    ) -> None:
        """Take note of how a trial ended: well, without some points, or with a traceback."""
        self.start_trial(config)
        status: Status = "FINISHED" if error is None else "FAILED"
        self._tracker.finish_trial(trial_key(config), status, error, infeasible)

    def add(self, folder: Path) -> OperatingPoint:
        """Take in the point that a folder holds, unless it is known; return it."""
        point = read_point(folder)
        if point.point_id in self._points:
            return point
        self._points[point.point_id] = point
        self._folders[point.point_id] = folder
        self.start_trial(point.config)
        if (curves := folder / CURVES).is_file():
            series = json.loads(curves.read_text())
            self._tracker.log_curves(point.point_id, series, point.trial_key)
        self._tracker.log_point(
            point, folder / RECORD, folder / BUNDLE, policy_record=folder / POLICY_RECORD
        )
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        tqdm.write(f"{len(self._points):4d}  {minutes:3d}:{seconds:02d}  {self._line(point)}")
        return point

    def add_test(self, folder: Path) -> None:
        """Take in what a point's policy did to the test split."""
        tested = read_test_point(folder)
        self._tracker.log_test_point(tested, folder / TEST_RECORD)
        self._test_accuracy[tested.point_id] = tested.accuracy

    def add_reading(self, readings: int) -> None:
        """Take note of how often the test split was read for the sweep."""
        self._tracker.log_readings(readings)
        tqdm.write(f"The test split was read, for the {nth(readings)} time in this sweep.")

    def add_proof(self, folder: Path, split: HeldOut) -> None:
        """Take in what a point's controls show on a split."""
        point = self.add(folder)
        self._tracker.log_dynamics(point, split, folder / FOLDERS[split])
        proof = read_explanation(folder / FOLDERS[split]).proof
        self._proofs[split][point.point_id] = proof
        tqdm.write(
            f"{describe(point)}, {split}: {proof.verdict}; points over fixed widths "
            f"{gain_text(proof.fixed)}, over shuffled {gain_text(proof.shuffled)}"
        )

    def add_timings(self, folder: Path, timings: list[PointTiming]) -> None:
        """Take in how fast a point is."""
        point = self.add(folder)
        self._tracker.log_timings(point, folder / TIMINGS)
        self._timings[point.point_id] = timings
        told = ", ".join(f"{speed_text(timing)} at batch {timing.batch}" for timing in timings)
        tqdm.write(f"{describe(point)}, {timings[0].device}: {told}")

    def proof_candidates(self, limit: int) -> list[Path]:
        """Return the folders of the points that are held against controls, cheapest first.

        Args:
            limit: at most so many of the swept method's, spread evenly over the cost; those on the
                front come before those on the method's own front.
        """
        first = [point for point in self.front() if point.method == self._method]
        first, own = (
            [point for point in points if point.groups > 1]  # else there is one plan, and no proof
            for points in (first, self._own_front())
        )
        rest = [point for point in own if point not in first]
        chosen = _spread(first, limit)
        chosen += _spread(rest, limit - len(chosen))
        cheapest_first = sorted(chosen, key=lambda point: point.macs_fraction)
        return [self._folders[point.point_id] for point in cheapest_first]

    def fixed_folders(self) -> list[Path]:
        """Return the folders of the points whose plan is fixed: uniform widths, dense network."""
        return [self._folders[point.point_id] for point in self._fixed()]

    def points_of(self, method: str) -> list[OperatingPoint]:
        """Return a method's points, as they came."""
        return [point for point in self._points.values() if point.method == method]

    def claims_of(self, method: str) -> list[OperatingPoint]:
        """Return a method's points, replicates as one, their mean."""
        return [each.point for each in pool(self.points_of(method))]

    def dense_folder(self) -> Path | None:
        """Return the folder of the dense network's point, if it was measured."""
        dense = self.points_of(DENSE)
        return self._folders[dense[0].point_id] if dense else None

    def test_candidates(self) -> list[Path]:
        """Return the folders of the points that are tested, cheapest first: reported and fixed.

        All are, where the networks have seen the validation images, which then choose nothing.
        """
        blind = not any(point.chooses for point in self._points.values())
        asked = self._points.values() if blind else [*self._reported(), *self._fixed()]
        chosen = {self._replicates(point)[0]: point for point in asked}
        ids = [id_ for each in _by_cost(chosen.values()) for id_ in self._replicates(each)]
        return [self._folders[id_] for id_ in ids]

    def timing_candidates(self, limit: int | None) -> list[Path]:
        """Return the folders of the points that are timed, cheapest first, at most so many."""
        reported = self._reported()
        chosen = reported if limit is None else _spread(reported, limit)
        return [self._folders[point.point_id] for point in chosen]

    def front(self) -> list[OperatingPoint]:
        """Return the points that no other beats on validation, cheapest first."""
        return front_of([each.point for each in pool(self._points.values())])

    def table(self) -> str:
        """Return the frontier and the dense network as a table for the terminal."""
        header = (
            f"{'MACs':>8}  {'validation':>10}  {'test':>7}  {'decisions':<9}  "
            f"{self._speed_titles()}method, groups, penalty\n{'of dense':>8}  {'accuracy':>10}"
        )
        return "\n".join([header, *(self._row(point) for point in self._reported())])

    def __len__(self) -> int:
        """Return how many points are known."""
        return len(self._points)

    def _own_front(self) -> list[OperatingPoint]:
        """Return the swept method's points that no other of its points beats, cheapest first."""
        return front_of(self.claims_of(self._method))

    def _replicates(self, point: OperatingPoint) -> tuple[str, ...]:
        """Return the ids of the points that one is the mean of; its own where it is alone."""
        pooled = pool(self._points.values())
        return next(each.ids for each in pooled if point.point_id in each.ids)

    def _fixed(self) -> list[OperatingPoint]:
        """Return the points whose plan is fixed."""
        return [p for p in self._points.values() if p.method in (DENSE, FIXED_WIDTH)]

    def _reported(self) -> list[OperatingPoint]:
        """Return the front, the swept method's own, and the dense network, cheapest first."""
        chosen = {
            point.point_id: point
            for point in [*self.front(), *self._own_front(), *self.points_of(DENSE)]
        }
        return _by_cost(chosen.values())

    def _row(self, point: OperatingPoint) -> str:
        tested = [
            self._test_accuracy[id_]
            for id_ in self._replicates(point)
            if id_ in self._test_accuracy
        ]
        shown = f"{np.mean(tested):7.2%}" if tested else f"{'':>7}"
        fraction, accuracy = f"{point.macs_fraction:8.1%}", f"{point.accuracy:10.2%}"
        proof = {**self._proofs["validation"], **self._proofs["test"]}.get(point.point_id)
        verdict = "" if proof is None else proof.verdict
        return (
            f"{fraction}  {accuracy}  {shown}  {verdict:<9}  {self._speeds(point)}{describe(point)}"
        )

    def _batches(self) -> list[int]:
        """Return the sizes of batch that points were timed at."""
        return sorted({timing.batch for own in self._timings.values() for timing in own})

    def _speed_titles(self) -> str:
        """Return the titles of the columns of speeds; nothing if no point was timed."""
        return "".join(f"{f'batch {batch}':>12}  " for batch in self._batches())

    def _speeds(self, point: OperatingPoint) -> str:
        """Return the columns of speeds of a point."""
        known = {timing.batch: timing for timing in self._timings.get(point.point_id, ())}
        texts = [
            "" if batch not in known else speed_text(known[batch]) for batch in self._batches()
        ]
        return "".join(f"{text:>12}  " for text in texts)

    def _line(self, point: OperatingPoint) -> str:
        own = self._replicates(point)
        front = "  on the front" if any(each.point_id in own for each in self.front()) else ""
        return (
            f"{point.accuracy:7.2%} at {point.macs_fraction:6.1%} of dense MACs  "
            f"{describe(point)}{front}"
        )


def _by_cost(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Return points, the cheapest first."""
    return sorted(points, key=lambda point: point.macs_fraction)


def front_of(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that no other of them beats, cheapest first."""
    if not points:
        return []
    mask = front_mask(points).tolist()
    return _by_cost(point for point, stays in zip(points, mask, strict=True) if stays)


def _spread(points: list[OperatingPoint], limit: int) -> list[OperatingPoint]:
    """Return at most so many of the points, evenly over their order."""
    if len(points) <= limit:
        return points
    places = np.linspace(0, len(points) - 1, limit).round().astype(int)
    return [points[place] for place in places]


def speed_text(timing: PointTiming) -> str:
    """Return a measured speed-up over dense, or that there is none to be believed."""
    return timing.verdict if timing.speedup is None else f"{timing.speedup[1]:.2f}x"


def nth(number: int) -> str:
    """Return an ordinal: 1st, 2nd, 3rd, 4th."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def describe(point: OperatingPoint) -> str:
    """Return what a point is, in a few words."""
    penalty = "" if point.penalty is None else f", penalty {point.penalty:.3g}"
    return f"{point.method}, {point.groups} groups{penalty}, point {point.index}"

"""Keeps a sweep's run up to date: who is on the front, what it covers, and its picture."""

import time
from typing import NamedTuple

from mlflow.entities import Run, RunTag

from runtime_pruning import glossary
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.report import Report
from runtime_pruning.frontier.summary import DENSE
from runtime_pruning.tracking import view
from runtime_pruning.tracking.boards import BoardReader
from runtime_pruning.tracking.notes import sweep_note
from runtime_pruning.tracking.rebuild import finished_points
from runtime_pruning.tracking.runs import Runs

_TAGS = (glossary.ON_FRONT, glossary.IN_VIEW, glossary.RUN_COLOUR)


class _Shown(NamedTuple):
    """A point's run, and its tags of `_TAGS` as the store has them."""

    run_id: str
    tags: dict[str, str]


class FrontPublisher:
    """The front of one sweep, as its runs in the store show it.

    Args:
        runs: the experiment's runs.
        sweep_id: whose front.
        board: gets the points that the store holds; those that it knows are not read again.
    """

    def __init__(self, runs: Runs, sweep_id: str, board: Board) -> None:
        self._runs = runs
        self._sweep_id = sweep_id
        self._board = board
        self._stored: dict[str, OperatingPoint] = {}
        self._shown: dict[str, _Shown] = {}
        self._uploaded: Report | None = None
        reader = BoardReader(runs.client, board)
        for run in finished_points(runs, sweep_id):
            point_id = reader.take(run)
            self._stored[point_id] = board.point(point_id)
            tags = {name: run.data.tags[name] for name in _TAGS if name in run.data.tags}
            self._shown[point_id] = _Shown(run.info.run_id, tags)

    def stored(self, point_id: str) -> OperatingPoint | None:
        """Return the point of that id, if the store holds it whole."""
        return self._stored.get(point_id)

    def add(self, point: OperatingPoint, run_id: str) -> None:
        """Take note that the store holds a point of the board."""
        self._stored[point.point_id] = point
        self._shown[point.point_id] = _Shown(run_id, {})
        self._board.add_run(point.point_id, view.run_path(self._runs.experiment_id, run_id))

    def tag_front(self) -> None:
        """Set what has changed of each point's place: on the front, in the view, its colour."""
        on_front = self._board.on_front()
        dense = [point.point_id for point in self._board.points if point.method == DENSE]
        in_view = view.in_view(on_front, dense)
        for point_id, on in on_front.items():
            shown = self._shown.get(point_id)
            if shown is None:
                continue
            wanted = {
                glossary.ON_FRONT: "true" if on else "false",
                glossary.IN_VIEW: "true" if point_id in in_view else "false",
                glossary.RUN_COLOUR: view.run_colour(
                    self._board.point(point_id).method, on_front=on
                ),
            }
            changed = {name: v for name, v in wanted.items() if shown.tags.get(name) != v}
            if changed:
                labels = [RunTag(name, value) for name, value in changed.items()]
                self._runs.client.log_batch(shown.run_id, tags=labels)
                self._shown[point_id] = shown._replace(tags=wanted)

    def log_progress(self, sweep: Run) -> None:
        """Log hypervolume and counts at step "points done", once per step."""
        done = len(self._board)
        current = self._runs.client.get_run(sweep.info.run_id).data.metrics
        if current.get(glossary.POINTS_DONE.name, 0) >= done:
            return
        metrics = {
            glossary.HYPERVOLUME.name: self._board.hypervolume(),
            glossary.FRONT_SIZE.name: float(sum(self._board.on_front().values())),
            glossary.POINTS_DONE.name: float(done),
        }
        self._runs.write(sweep, metrics=metrics, at_ms=time.time_ns() // 1_000_000, step=done)

    def upload(self, report: Report, sweep: Run) -> None:
        """Put page, picture and table on the sweep's run, and the table in its description."""
        if report is self._uploaded:
            return
        run_id = sweep.info.run_id
        for path in (report.page, report.picture, report.table):
            self._runs.client.log_artifact(run_id, str(path))
        note = sweep_note(report.summary, self._runs.experiment_id, run_id, self._sweep_id)
        self._runs.client.set_tag(run_id, glossary.NOTE, note)
        self._uploaded = report

"""Keeps a sweep's run up to date: who is on the front, what it covers, and its picture."""

import time
from typing import NamedTuple

from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.report import Report, markdown_table
from runtime_pruning.frontier.summary import FrontierSummary
from runtime_pruning.tracking import view
from runtime_pruning.tracking.boards import BoardReader
from runtime_pruning.tracking.rebuild import finished_points
from runtime_pruning.tracking.runs import Runs

_NOTE_ROWS = 30  # a tag holds 8000 characters


class _Shown(NamedTuple):
    """A point's run, and its tag `on_front` as the store has it."""

    run_id: str
    on_front: str | None


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
            self._shown[point_id] = _Shown(run.info.run_id, run.data.tags.get(glossary.ON_FRONT))

    def stored(self, point_id: str) -> OperatingPoint | None:
        """Return the point of that id, if the store holds it whole."""
        return self._stored.get(point_id)

    def add(self, point: OperatingPoint, run_id: str) -> None:
        """Take note that the store holds a point of the board."""
        self._stored[point.point_id] = point
        self._shown[point.point_id] = _Shown(run_id, None)
        self._board.add_run(point.point_id, view.run_path(self._runs.experiment_id, run_id))

    def tag_front(self) -> None:
        """Set the tag of each point whose place on or off the front has changed."""
        for point_id, on_front in self._board.on_front().items():
            shown, value = self._shown.get(point_id), "true" if on_front else "false"
            if shown is not None and shown.on_front != value:
                self._runs.client.set_tag(shown.run_id, glossary.ON_FRONT, value)
                self._shown[point_id] = shown._replace(on_front=value)

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
        self._runs.client.set_tag(run_id, glossary.NOTE, self._note(report.summary))
        self._uploaded = report

    def _note(self, summary: FrontierSummary) -> str:
        """Return the description of the sweep's run, in Markdown."""
        link = view.view_path(self._runs.experiment_id, self._sweep_id).removeprefix("/")
        table = markdown_table(summary, front_only=True, limit=_NOTE_ROWS)
        return (
            f"**[Accuracy against MACs, all points]({link})**. "
            f"Interactive page: artifact `{glossary.PAGE}`.\n\n"
            f"{len(summary.points)} operating points, {len(summary.front)} on the front, "
            f"hypervolume {summary.hypervolume:.4f}.\n\n{table}"
        )

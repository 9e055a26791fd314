"""Keeps a sweep's run up to date: who is on the front, what it covers, and its picture."""

import logging
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.errors import UserError
from runtime_pruning.frontier.dominance import Reference, hypervolume, losses_of, pareto_mask
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.proof import Proof
from runtime_pruning.frontier.records import Record
from runtime_pruning.frontier.report import draw_report, markdown_table
from runtime_pruning.frontier.summary import FrontierSummary
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.tracking import view
from runtime_pruning.tracking.rebuild import finished_points, load_point, load_proof
from runtime_pruning.tracking.runs import Runs

log = logging.getLogger(__name__)

_NOTE_ROWS = 30  # a tag holds 8000 characters


class _Entry(NamedTuple):
    point: OperatingPoint
    evidence: Evidence
    run_id: str


class FrontPublisher:
    """The front of one sweep, as its runs in the store show it.

    Args:
        runs: the experiment's runs.
        sweep_id: whose front.
        reference: corner of the hypervolume.
    """

    def __init__(self, runs: Runs, sweep_id: str, reference: Reference) -> None:
        self._runs = runs
        self._sweep_id = sweep_id
        self._reference = reference
        self._entries: dict[str, _Entry] = {}
        self._shown: dict[str, str] = {}  # tag `on_front` as the store has it, by run id
        self._proofs: dict[str, Proof] = {}
        self._drawn = (0, 0)  # points and proofs in the report that the store has
        for run in finished_points(runs, sweep_id):
            point, record = load_point(runs.client, run)
            self.add(point, record, run.info.run_id)
            self._shown[run.info.run_id] = run.data.tags.get(glossary.ON_FRONT, "")
            if glossary.VERDICT in run.data.tags:
                self.add_proof(point.point_id, load_proof(runs.client, run, record))

    def __len__(self) -> int:
        """Return how many points the store holds."""
        return len(self._entries)

    def get(self, point_id: str) -> OperatingPoint | None:
        """Return the point of that id, if the store holds it."""
        entry = self._entries.get(point_id)
        return entry.point if entry else None

    def add(self, point: OperatingPoint, record: Record, run_id: str) -> None:
        """Take in a point that the store holds; the first of an id stays."""
        self._entries.setdefault(point.point_id, _Entry(point, Evidence.of(record), run_id))

    def add_proof(self, point_id: str, proof: Proof) -> None:
        """Take in what a point's controls show, on validation."""
        self._proofs[point_id] = proof

    def publish(self, sweep: Run, *, draw: bool) -> None:
        """Bring tags and live metrics up to date, and the report if it is asked for and old."""
        if not self._entries:
            return
        self._tag_front()
        self._log_progress(sweep)
        known = len(self._entries), len(self._proofs)
        if draw and self._drawn != known:
            self._drawn = known
            try:
                self._draw(sweep)
            except UserError as error:
                # The points are safe; what cannot be drawn now will not be drawn by trying again.
                log.warning("No report was drawn: %s", error)

    def _tag_front(self) -> None:
        """Set the tag of each point whose place on or off the front has changed."""
        entries = list(self._entries.values())
        for entry, on_front in zip(entries, self._mask(entries), strict=True):
            value = "true" if on_front else "false"
            if self._shown.get(entry.run_id) != value:
                self._runs.client.set_tag(entry.run_id, glossary.ON_FRONT, value)
                self._shown[entry.run_id] = value

    def _log_progress(self, sweep: Run) -> None:
        """Log hypervolume and counts at step "points done", once per step."""
        entries = list(self._entries.values())
        done = len(entries)
        current = self._runs.client.get_run(sweep.info.run_id).data.metrics
        if current.get(glossary.POINTS_DONE.name, 0) >= done:
            return
        losses = losses_of([entry.point for entry in entries])
        metrics = {
            glossary.HYPERVOLUME.name: hypervolume(losses, self._reference.losses_K),
            glossary.FRONT_SIZE.name: float(pareto_mask(losses).sum()),
            glossary.POINTS_DONE.name: float(done),
        }
        self._runs.write(sweep, metrics=metrics, at_ms=time.time_ns() // 1_000_000, step=done)

    def _draw(self, sweep: Run) -> None:
        """Put page, picture and table on the sweep's run, and the table in its description."""
        dense = sweep.data.params.get(glossary.DENSE_ACCURACY)
        with tempfile.TemporaryDirectory() as folder:
            drawn = draw_report(
                [(entry.point, entry.evidence) for entry in self._entries.values()],
                Path(folder),
                reference=self._reference,
                proofs=self._proofs,
                dense_accuracy=float(dense) if dense else None,
            )
            self._runs.client.log_artifacts(sweep.info.run_id, folder)
        note = self._note(drawn.summary)
        self._runs.client.set_tag(sweep.info.run_id, glossary.NOTE, note)

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

    def _mask(self, entries: list[_Entry]) -> list[bool]:
        """Return which entries no other beats."""
        mask: list[bool] = pareto_mask(losses_of([e.point for e in entries])).tolist()
        return mask

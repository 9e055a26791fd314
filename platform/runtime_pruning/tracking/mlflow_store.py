"""The one writer to MLflow: sweep, trials and points as nested runs.

Every call first puts an event on disk, then writes what waits. A store that fails delays what is
written and never stops a sweep; a writer that is killed leaves its events behind, and the next one
completes them. Runs are found before they are created, so nothing is ever logged twice.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.files import locked
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint, figures_of
from runtime_pruning.frontier.proof import Controls, prove
from runtime_pruning.frontier.records import HeldOut, read_record
from runtime_pruning.tracking import view
from runtime_pruning.tracking.rebuild import dynamics_folder
from runtime_pruning.tracking.spool import Event, Kind, Spool
from runtime_pruning.tracking.storage import check_alive
from runtime_pruning.tracking.writer import EventWriter, point_key

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]


class FrontierTracker:
    """Logs one sweep, from one process: workers report to it and never open the store.

    No method raises because the store fails: events wait in the spool. What cannot be right (a
    record of the wrong split, figures that it does not give) raises at once.

    Args:
        uri: where to write; see :func:`~runtime_pruning.tracking.storage.resolve_uri`.
        experiment: MLflow experiment, created if absent.
        sweep_id: the sweep; logging to the id of an earlier one continues it.
        spool_dir: the sweep's own folder on a local disk. Keep it across restarts.
        reference: corner of the hypervolume, stored with the sweep.
        retry_after_s: how long a store that failed is left alone, in seconds.
        report_every_s: least time between two drawings of page and picture, in seconds.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        sweep_id: str,
        spool_dir: Path,
        *,
        reference: Reference | None = None,
        retry_after_s: float = 30.0,
        report_every_s: float = 30.0,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.sweep_id = sweep_id
        self.reference = reference or Reference()
        self._spool_dir = Path(spool_dir)
        self._retry_after_s = retry_after_s
        self._report_every_s = report_every_s
        self._writer: EventWriter | None = None
        self._forget()

    def start_sweep(self, params: Mapping[str, Any]) -> None:
        """Open the sweep's run, or continue it; first write whatever a crash left waiting.

        Args:
            params: settings, nested or not. ``dense_accuracy``, a share, is drawn if given.

        Raises:
            DataError: ``dense_accuracy`` is no share.
        """
        dense = params.get(glossary.DENSE_ACCURACY, 0.0)
        if not (isinstance(dense, int | float) and 0 <= dense <= 1):
            raise DataError(f"`0 <= dense_accuracy <= 1` must hold, but got {dense!r}.")
        for event in self._spool.waiting():
            if event.kind == "sweep_end":  # it goes on after all
                self._spool.drop(event)
        self._log("sweep", self.sweep_id, _plain(params))

    def start_trial(self, trial_key: str, params: Mapping[str, Any]) -> None:
        """Open a trial's run under the sweep's, or continue it."""
        self._log("trial", trial_key, {"trial_key": trial_key, "params": _plain(params)})

    def log_point(
        self, point: OperatingPoint, record_path: Path, bundle_dir: Path | None = None
    ) -> None:
        """Log an operating point, its record and what it takes to deploy it; once, however often.

        Args:
            point: measured on the validation split.
            record_path: its record; copied before this returns, so the file may go.
            bundle_dir: files that deploy the policy, kept as the artifact ``bundle``.

        Raises:
            DataError: the record is unreadable, of another split, or gives other figures; or the
                point is another sweep's.
        """
        self._check_record(point, record_path, "validation")
        files = {glossary.RECORD: record_path}
        if bundle_dir is not None:
            files[glossary.BUNDLE] = bundle_dir
        self._log("point", point.point_id, json.loads(point.to_json()), files)

    def log_test_record(self, point: OperatingPoint, record_path: Path) -> None:
        """Add what a chosen point's policy did to the test split, once, at the sweep's end.

        Raises:
            DataError: the record is unreadable or of another split, or the point is another
                sweep's.
        """
        self._check_record(point, record_path, "test")
        payload = {"key": point_key(point), "dense_macs": point.dense_macs}
        self._log("test", point.point_id, payload, {glossary.TEST_RECORD: record_path})

    def log_dynamics(self, point: OperatingPoint, record_path: Path, folder: Path) -> None:
        """Add what a point's controls show on one split, once.

        Args:
            point: measured on the validation split.
            record_path: of its policy, on the split in question.
            folder: the records of the controls, with what was derived from them.

        Raises:
            DataError: a record is unreadable or of other images, ``dynamics.json`` says something
                else than the records, or the point is another sweep's.
        """
        record = read_record(record_path)
        self._check_record(point, record_path, record.split)
        told = json.loads((folder / glossary.DYNAMICS_FILE).read_text())
        if told["proof"] != asdict(prove(record, Controls.read(folder))):
            raise DataError(f"Point {point.point_id} has gains that {folder} does not give.")
        payload = {
            "key": point_key(point),
            "point_id": point.point_id,
            "split": record.split,
        }
        files = {glossary.RECORD: record_path, dynamics_folder(record.split): folder}
        self._log("dynamics", f"{point.point_id}-{record.split}", payload, files)

    def finish_trial(self, trial_key: str, status: Status = "FINISHED") -> None:
        """Close a trial's run."""
        payload = {"trial_key": trial_key, "status": status}
        self._log("trial_end", f"{trial_key}-{status}", payload)

    def update_front(self) -> None:
        """Draw the frontier's page, picture and table now, if a point has come since."""
        self._flush(draw=True, at_once=True)

    def finish(self, status: Status = "FINISHED") -> int:
        """Draw the frontier and close the sweep's run, with every trial that is still open.

        Returns:
            How many events could not be written. They wait; :meth:`replay` writes them.
        """
        self._spool.put("sweep_end", status, {"status": status})
        return self.replay()

    def replay(self) -> int:
        """Write what waits in the spool, now; return how many events still wait."""
        self._flush(draw=True, at_once=True)
        waiting = len(self._spool.waiting())
        if waiting:
            log.warning("%d event(s) wait in %s for %s.", waiting, self._spool_dir, self.uri)
        return waiting

    @property
    def view_path(self) -> str | None:
        """Address of the sweep's saved view behind the server's; None before the store answered."""
        if self._writer is None:
            return None
        return view.view_path(self._writer.experiment_id, self.sweep_id)

    def _check_record(self, point: OperatingPoint, path: Path, split: HeldOut) -> None:
        """Raise unless the record is of that split and the point is what it shows."""
        record = read_record(path)
        if point.sweep_id != self.sweep_id:
            raise DataError(
                f"A point of sweep {point.sweep_id!r} does not belong to {self.sweep_id!r}."
            )
        if record.split != split or point.split != "validation":
            raise DataError(
                f"The point must be of the validation split and the record of {split}, "
                f"but got {point.split} and {record.split}."
            )
        analytic = point.figures.macs_per_image
        if split == "validation" and point.figures != figures_of(
            record, point.dense_macs, analytic_macs_per_image=analytic
        ):
            raise DataError(f"Point {point.point_id} has figures that {path} does not give.")

    def _log(
        self, kind: Kind, key: str, payload: dict[str, Any], files: Mapping[str, Path] | None = None
    ) -> None:
        """Keep an event on disk, then write what waits."""
        self._spool.put(kind, key, payload, files)
        self._flush(draw=self._report_is_due(), at_once=False)

    def _flush(self, *, draw: bool, at_once: bool) -> None:
        """Write what waits; a failure is logged, and the store left alone for a while."""
        if not at_once and time.monotonic() < self._retry_at:
            return
        try:
            with locked(self._spool_dir.parent / f".{self._spool_dir.name}.lock"):
                self._write_waiting(draw)
        except Exception as error:
            # The boundary between tracking and the sweep: training goes on whatever happens.
            log.warning("Not written to %s, kept in %s: %s", self.uri, self._spool_dir, error)
            log.debug("Traceback of the failure to write:", exc_info=True)
            self._forget(retry_in_s=self._retry_after_s)

    def _write_waiting(self, draw: bool) -> None:
        """Write all that waits, in order, then bring the front up to date."""
        if self._writer is None:
            self._writer = EventWriter(
                self.uri, self.experiment, self.sweep_id, self._spool, self.reference
            )
        else:
            check_alive(self.uri)
        for event in self._spool.waiting():
            self._write(self._writer, event)
        self._writer.publish(draw=draw)
        if draw:
            self._drawn_at = time.monotonic()

    def _write(self, writer: EventWriter, event: Event) -> None:
        """Write one event; put it aside if the store will never take it."""
        try:
            writer.write(event)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            aside = self._spool.reject(event)
            log.exception("The store refuses an event for good; it lies in %s.", aside)
        else:
            self._spool.drop(event)

    def _report_is_due(self) -> bool:
        """Whether the last drawing is old enough."""
        return time.monotonic() >= self._drawn_at + self._report_every_s

    def _forget(self, retry_in_s: float = 0.0) -> None:
        """Start from what disk and store hold: nothing else is known for sure."""
        self._spool = Spool(self._spool_dir)
        self._writer = None
        self._retry_at = time.monotonic() + retry_in_s
        self._drawn_at = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections behind: a copy opens its own."""
        return {**vars(self), "_writer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain JSON; what JSON cannot say becomes its text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(params), default=str))
    return plain

"""The one writer to MLflow: sweep, trials and points as nested runs.

Every call puts an event on disk and returns; a thread of the tracker's own writes what waits, and
draws. A store that fails delays what is written and never stops a sweep; a writer that is killed
leaves its events behind, and the next one completes them. Runs are found before they are created,
so nothing is ever logged twice.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from runtime_pruning import glossary
from runtime_pruning.curves import Series
from runtime_pruning.errors import DataError, UserError
from runtime_pruning.files import locked
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import HeldOut
from runtime_pruning.frontier.report import Report
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.frontier.timings import read_timings
from runtime_pruning.tracking.boards import setting_of
from runtime_pruning.tracking.rebuild import dynamics_folder
from runtime_pruning.tracking.spool import Event, Kind, Spool
from runtime_pruning.tracking.storage import check_alive
from runtime_pruning.tracking.writer import EventWriter, point_key, take_point

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]


class FrontierTracker:
    """Logs one sweep, from one process: workers report to it and never open the store.

    No method waits for the store, or raises because it fails: events wait in the spool.

    Args:
        uri: where to write; see :func:`~runtime_pruning.tracking.storage.resolve_uri`.
        experiment: MLflow experiment, created if absent.
        sweep_id: the sweep; logging to the id of an earlier one continues it.
        spool_dir: the sweep's own folder on a local disk. Keep it across restarts.
        report_dir: where page, picture and table are drawn; None takes a folder of the spool's.
        reference: corner of the hypervolume, stored with the sweep.
        pictures: of the images that points are measured on, for the page.
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
        report_dir: Path | None = None,
        reference: Reference | None = None,
        pictures: Thumbnails | None = None,
        retry_after_s: float = 30.0,
        report_every_s: float = 30.0,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.sweep_id = sweep_id
        self.report: Report | None = None
        self._board = Board(reference or Reference(), pictures)
        self._board.setting = setting_of(uri)
        self._spool_dir = Path(spool_dir)
        self._report_dir = report_dir or self._spool_dir / "report"
        self._spool = Spool(self._spool_dir)
        self._retry_after_s = retry_after_s
        self._report_every_s = report_every_s
        self._retry_at = self._drawn_at = time.monotonic()
        # Of the thread only.
        self._writer: EventWriter | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow-writer")
        self._unkept = 0  # events that the spool had no room for
        self._asked = threading.Event()  # a pass is due that has not begun

    def start_sweep(self, params: Mapping[str, Any]) -> None:
        """Open the sweep's run, or continue it; first write whatever a crash left waiting.

        Args:
            params: settings, nested or not.
        """
        for event in self._spool.waiting():
            if event.kind == "sweep_end":  # it goes on after all
                self._spool.drop(event)
        self._log("sweep", self.sweep_id, _plain(params))

    def start_trial(self, trial_key: str, params: Mapping[str, Any]) -> None:
        """Open a trial's run under the sweep's, or continue it."""
        self._log("trial", trial_key, {"trial_key": trial_key, "params": _plain(params)})

    def log_curves(self, key: str, series: Series, trial_key: str | None = None) -> None:
        """Add learning curves to a trial's run, or to the sweep's own; once for each key.

        Args:
            key: what the curves belong to, fit for a file name.
            series: steps and values, by names of the glossary.
            trial_key: whose run; None is the sweep's.
        """
        self._log("curves", key, {"trial_key": trial_key, "series": _plain(series)})

    def log_point(
        self,
        point: OperatingPoint,
        record_path: Path,
        bundle_dir: Path | None = None,
        *,
        policy_record: Path | None = None,
    ) -> None:
        """Log an operating point, its record and what it takes to deploy it; once, however often.

        Args:
            point: measured on the validation split.
            record_path: its record. It may go once this returns, but not be written to in place.
            bundle_dir: files that deploy the policy, kept as the artifact ``bundle``.
            policy_record: its record of the policy split, for cascades.

        Raises:
            DataError: the record is absent, or the point another sweep's or of another split.
        """
        self._check(point, record_path, "validation")
        files = {glossary.RECORD: record_path}
        if bundle_dir is not None:
            files[glossary.BUNDLE] = bundle_dir
        if policy_record is not None and policy_record.exists():
            files[glossary.POLICY_RECORD] = policy_record
        self._log("point", point.point_id, json.loads(point.to_json()), files)

    def log_test_point(self, point: OperatingPoint, record_path: Path) -> None:
        """Add what a chosen point's policy did to the test split, once, at the sweep's end.

        Args:
            point: measured on the test split.
            record_path: its record there.

        Raises:
            DataError: the record is absent, or the point another sweep's or of another split.
        """
        self._check(point, record_path, "test")
        payload = {"key": point_key(point), "point": json.loads(point.to_json())}
        self._log("test", point.point_id, payload, {glossary.TEST_RECORD: record_path})

    def log_readings(self, readings: int) -> None:
        """Add how often the test split was read for the sweep."""
        self._log("exam", str(readings), {"readings": readings})

    def log_dynamics(self, point: OperatingPoint, split: HeldOut, folder: Path) -> None:
        """Add what a point's controls show on one split, once.

        Args:
            point: whose controls.
            split: on which images.
            folder: the records of the controls, with what was derived from them.

        Raises:
            DataError: the folder has no ``dynamics.json``, or the point is another sweep's.
        """
        self._check(point, folder / glossary.DYNAMICS_FILE, point.split)
        payload = {"key": point_key(point), "point_id": point.point_id, "split": split}
        files = {dynamics_folder(split): folder}
        self._log("dynamics", f"{point.point_id}-{split}", payload, files)

    def log_timings(self, point: OperatingPoint, path: Path) -> None:
        """Add how fast a point is on one device, once for each device.

        Args:
            point: whose timings.
            path: the file that `write_timings` wrote, of one device.

        Raises:
            DataError: the file is absent, unreadable or of several devices, or the point is another
                sweep's.
        """
        self._check(point, path, point.split)
        devices = sorted({timing.device for timing in read_timings(path)})
        if len(devices) != 1:
            raise DataError(f"A file of timings is of one device, but got {devices}.")
        payload = {"key": point_key(point), "point_id": point.point_id, "device": devices[0]}
        self._log("timing", f"{point.point_id}-{devices[0]}", payload, {glossary.TIMINGS: path})

    def finish_trial(
        self,
        trial_key: str,
        status: Status = "FINISHED",
        error: str | None = None,
        infeasible: str = "",
    ) -> None:
        """Close a trial's run.

        Args:
            trial_key: whose.
            status: how it ended.
            error: why it failed: kept as the artifact ``error.txt``.
            infeasible: why points that were asked for do not exist: a tag.
        """
        payload = {"trial_key": trial_key, "status": status, "error": error}
        payload |= {"infeasible": infeasible} if infeasible else {}
        self._log("trial_end", f"{trial_key}-{status}", payload)

    def finish(self, status: Status = "FINISHED") -> int:
        """Draw the frontier and close the sweep's run, with every trial that is still open.

        Returns:
            How many events could not be written. They wait, and :meth:`replay` writes them; those
            that the spool could not keep come when the sweep is started again, and until then its
            run is not marked as finished.
        """
        own: Status = "FAILED" if self._unkept and status == "FINISHED" else status
        self._keep("sweep_end", own, {"status": own})
        return self.replay() + self._unkept

    def replay(self) -> int:
        """Write what waits in the spool, and draw, now; return how many events still wait."""
        self._thread.submit(self._pass, at_once=True).result()
        waiting = len(self._spool.waiting())
        if waiting:
            log.warning("%d event(s) wait in %s for %s.", waiting, self._spool_dir, self.uri)
        return waiting

    @property
    def page_path(self) -> str | None:
        """Where MLflow shows the page, behind the server's address; None before it answered."""
        return None if self._writer is None else self._writer.page_path

    def _check(self, point: OperatingPoint, path: Path, split: HeldOut) -> None:
        """Raise unless the point is of this sweep and that split, and its file is there."""
        if point.sweep_id != self.sweep_id:
            raise DataError(
                f"A point of sweep {point.sweep_id!r} does not belong to {self.sweep_id!r}."
            )
        if point.split != split:
            raise DataError(f"The point must be of the {split} split, but got {point.split}.")
        if not path.is_file():
            raise DataError(f"Point {point.point_id} rests on {path}, which does not exist.")

    def _log(
        self, kind: Kind, key: str, payload: dict[str, Any], files: Mapping[str, Path] | None = None
    ) -> None:
        """Keep an event on disk, and have what waits written."""
        self._keep(kind, key, payload, files)
        if not self._asked.is_set():
            self._asked.set()
            self._thread.submit(self._pass)

    def _keep(
        self, kind: Kind, key: str, payload: dict[str, Any], files: Mapping[str, Path] | None = None
    ) -> None:
        """Keep an event on disk; where that is full the sweep goes on, and the event is counted."""
        try:
            self._spool.put(kind, key, payload, files)
        except OSError as error:
            self._unkept += 1
            log.warning(
                "MLflow will lack a %s, %s, until the sweep is started again: %s", kind, key, error
            )

    # What follows runs in the thread.

    def _pass(self, *, at_once: bool = False) -> None:
        """Write what waits and draw what is due; a store that failed is left alone for a while."""
        self._asked.clear()
        now = time.monotonic()
        due = at_once or now >= self._drawn_at + self._report_every_s
        try:
            with locked(self._spool_dir.parent / f".{self._spool_dir.name}.lock"):
                if at_once or now >= self._retry_at:
                    self._write_waiting()
                if due:
                    self._draw()
                if self._writer is not None:
                    self._writer.publish(self.report)
        except Exception as error:
            # The boundary between tracking and the sweep: training goes on whatever happens.
            self._give_up(error)

    def _write_waiting(self) -> None:
        """Write all that waits, in order."""
        try:
            if self._writer is None:
                self._writer = EventWriter(
                    self.uri, self.experiment, self.sweep_id, self._spool, self._board
                )
            else:
                check_alive(self.uri)
            for event in self._spool.waiting():
                if event.kind == "sweep_end":  # the mark that all is there
                    self._draw()
                    self._writer.publish(self.report)
                self._write(self._writer, event)
        except Exception as error:
            self._give_up(error)
            self._take_waiting()

    def _write(self, writer: EventWriter, event: Event) -> None:
        """Write one event; put it aside if it will never be taken."""
        try:
            writer.write(event)
        except (MlflowException, DataError) as error:
            refused = getattr(error, "error_code", "INVALID_PARAMETER_VALUE")
            if refused != "INVALID_PARAMETER_VALUE":
                raise
            aside = self._spool.reject(event)
            log.exception("An event can never be written; it lies in %s.", aside)
        else:
            self._spool.drop(event)

    def _take_waiting(self) -> None:
        """Put points that the store does not take now on the board: they are drawn all the same."""
        for event in self._spool.waiting():
            if event.kind == "point":
                with contextlib.suppress(DataError):
                    take_point(self._board, self._spool, event)

    def _draw(self) -> None:
        """Draw page, picture and table of all points so far, if there are new ones."""
        if self._board.is_drawn:
            return
        self._drawn_at = time.monotonic()
        try:
            self.report = self._board.draw(self._report_dir)
        except UserError as error:
            # The points are safe; what cannot be drawn now will not be drawn by trying again.
            log.warning("No report was drawn: %s", error)

    def _give_up(self, error: Exception) -> None:
        """Say what failed; start again later from what disk and store hold."""
        log.warning("Not written to %s, kept in %s: %s", self.uri, self._spool_dir, error)
        log.debug("Traceback of the failure to write:", exc_info=error)
        self._writer = None
        self._retry_at = time.monotonic() + self._retry_after_s


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as plain JSON; what JSON cannot say becomes its text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(params), default=str))
    return plain

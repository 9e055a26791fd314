"""Writes events to MLflow: each kind of event has one method, and may be written again."""

import json
import logging
import time
from typing import Any

from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.details import Details
from runtime_pruning.frontier.explanation import read_explanation
from runtime_pruning.frontier.points import Figures, OperatingPoint
from runtime_pruning.frontier.records import HeldOut, read_record
from runtime_pruning.frontier.report import Report
from runtime_pruning.frontier.showing import Tested
from runtime_pruning.frontier.timings import read_timings
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.tracking import view
from runtime_pruning.tracking.notes import point_note, with_dynamics
from runtime_pruning.tracking.origins import dataset_input, source_tags, trial_note
from runtime_pruning.tracking.publishing import FrontPublisher
from runtime_pruning.tracking.rebuild import (
    dynamics_folder,
    timed_devices,
    timings_folder,
    verdict_tag,
)
from runtime_pruning.tracking.runs import Runs, flat
from runtime_pruning.tracking.spool import Event, Spool
from runtime_pruning.tracking.storage import find_or_create_experiment, open_store

log = logging.getLogger(__name__)


class EventWriter:
    """One sweep's runs in a store that answers.

    Args:
        uri: the store's address.
        experiment: MLflow experiment, created if absent.
        sweep_id: the sweep.
        spool: where the files of events lie.
        board: gets each point as it is written, and those that the store holds already.

    Raises:
        StoreUnavailableError: a server that does not answer.
    """

    def __init__(
        self, uri: str, experiment: str, sweep_id: str, spool: Spool, board: Board
    ) -> None:
        client = open_store(uri)
        self.experiment_id = find_or_create_experiment(client, uri, experiment).experiment_id
        self._runs = Runs(client, self.experiment_id)
        self._sweep_id = sweep_id
        self._spool = spool
        self._board = board
        self._front = FrontPublisher(self._runs, sweep_id, board)
        self._run_ids: dict[str, str] = {}

    @property
    def page_path(self) -> str | None:
        """Where MLflow shows the sweep's page, behind the server's address; None before it is."""
        run_id = self._run_ids.get(self._sweep_id)
        return None if run_id is None else view.page_path(self.experiment_id, run_id)

    def write(self, event: Event) -> None:
        """Write one event; what the store holds already stays as it is."""
        {
            "sweep": self._write_sweep,
            "trial": self._write_trial,
            "curves": self._write_curves,
            "point": self._write_point,
            "test": self._write_test,
            "exam": self._write_exam,
            "dynamics": self._write_dynamics,
            "timing": self._write_timing,
            "trial_end": self._write_trial_end,
            "sweep_end": self._write_sweep_end,
        }[event.kind](event)

    def publish(self, report: Report | None) -> None:
        """Bring the front's tags up to date, and the sweep's report if there is a new one."""
        self._front.tag_front()
        if report is not None:
            self._front.upload(report, self._sweep_run(time.time_ns() // 1_000_000))

    def _write_sweep(self, event: Event) -> None:
        run = self._sweep_run(event.at_ms)
        declared = {
            glossary.REFERENCE_ACCURACY: self._board.reference.accuracy,
            glossary.REFERENCE_MACS_FRACTION: self._board.reference.macs_fraction,
        }
        tags = source_tags(str(event.payload.get("code_version", "unknown")))
        params = {**flat(event.payload), **declared}
        self._runs.write(run, params=params, tags=tags, at_ms=event.at_ms)
        if "data" in event.payload:
            data = dataset_input(event.payload["data"])
            self._runs.client.log_inputs(run.info.run_id, datasets=[data])
        client, run_id = self._runs.client, run.info.run_id
        if glossary.SWEEP not in {file.path for file in client.list_artifacts(run_id)}:
            client.log_dict(run_id, event.payload, glossary.SWEEP)
        self._runs.reopen(run)
        self._install_view(event.at_ms)

    def _write_trial(self, event: Event) -> None:
        run = self._trial_run(event.payload["trial_key"], event.at_ms)
        params, tags = event.payload["params"], {glossary.NOTE: trial_note(event.payload["params"])}
        self._runs.write(run, params=flat(params), tags=tags, at_ms=event.at_ms)
        if run.info.status != "FINISHED":
            self._runs.reopen(run)

    def _write_curves(self, event: Event) -> None:
        key = event.payload["trial_key"]
        run = self._sweep_run(event.at_ms) if key is None else self._trial_run(key, event.at_ms)
        self._runs.write_series(run, event.payload["series"], at_ms=event.at_ms)

    def _write_point(self, event: Event) -> None:
        point = take_point(self._board, self._spool, event)
        stored = self._front.stored(point.point_id)
        if stored is None:
            run = self._point_run(point, event.at_ms)
            self._fill_point(run, point, event)
            self._front.add(point, run.info.run_id)
            self._front.log_progress(self._sweep_run(event.at_ms))
            trial = self._trial_run(point.trial_key, event.at_ms)
            shown = (glossary.ACCURACY.name, glossary.MACS_FRACTION.name)
            by_point = {name: [(point.index, getattr(point, name))] for name in shown}
            self._runs.write_series(trial, by_point, at_ms=event.at_ms)
        elif stored.figures != point.figures:
            log.warning(
                "Point %s was measured again with other figures; the first stay: %s, then %s.",
                point.point_id,
                stored.figures,
                point.figures,
            )

    def _fill_point(self, run: Run, point: OperatingPoint, event: Event) -> None:
        """Write a point's artifacts, then its numbers, then the mark that it is whole."""
        run_id = run.info.run_id
        for artifact in sorted(self._spool.files(event).iterdir()):
            self._runs.keep(run, artifact)
        self._runs.client.log_text(run_id, point.to_json(), glossary.POINT)
        metrics = {
            **_numbers(point.figures),
            glossary.DENSE_MACS.name: float(point.dense_macs),
            **{metric.name: float(getattr(point, metric.name)) for metric in glossary.EFFORT},
        }
        params = {name: getattr(point, name) for name in glossary.POINT_PARAMS}
        self._runs.write(
            run,
            params={**params, **flat(point.config, "config.")},
            metrics=metrics,
            tags={
                glossary.NOTE: self._point_note(run, point, event),
                **source_tags(point.code_version),
            },
            at_ms=event.at_ms,
        )
        self._runs.end(run, "FINISHED", event.at_ms)

    def _point_note(self, run: Run, point: OperatingPoint, event: Event) -> str:
        """Return what a point's run says of itself."""
        files = {glossary.POINT, *(path.name for path in self._spool.files(event).iterdir())}
        sweep = self._sweep_run(event.at_ms).info.run_id
        return point_note(point, self.experiment_id, run.info.run_id, sweep, files)

    def _write_test(self, event: Event) -> None:
        run, point = self._known_point(event), event.payload["point"]
        if run.data.tags.get(glossary.TESTED) == "true":
            log.warning("The test split was read before for %s; the first stays.", event.key)
            return
        path = self._spool.files(event) / glossary.TEST_RECORD
        self._runs.keep(run, path)
        tested = OperatingPoint.from_json(json.dumps(point))
        self._board.add_test(tested.point_id, Tested.of(tested, Evidence.of(read_record(path))))
        figures = _numbers(tested.figures, "test_")
        self._runs.write(run, metrics=figures, tags={glossary.TESTED: "true"}, at_ms=event.at_ms)

    def _write_exam(self, event: Event) -> None:
        """Tag the sweep with how often its test split was read; a count never falls."""
        run = self._sweep_run(event.at_ms)
        known = int(run.data.tags.get(glossary.TEST_READINGS, 0))
        count = max(known, int(event.payload["readings"]))
        self._runs.write(run, tags={glossary.TEST_READINGS: str(count)}, at_ms=event.at_ms)

    def _write_dynamics(self, event: Event) -> None:
        split: HeldOut = event.payload["split"]
        run, tag = self._known_point(event), verdict_tag(split)
        if tag in run.data.tags:
            log.warning("Controls of %s were logged before; the first stay.", event.key)
            return
        artifact = dynamics_folder(split)
        folder = self._spool.files(event) / artifact
        self._runs.keep(run, folder)
        numbers, proof = read_explanation(folder)
        prefix = "test_" if split == "test" else ""
        metrics = {f"{prefix}{name}": value for name, value in numbers.items()}
        known = run.data.tags.get(glossary.NOTE, "")
        note = with_dynamics(known, self.experiment_id, run.info.run_id, artifact)
        tags = {tag: proof.verdict, glossary.NOTE: note}
        self._runs.write(run, metrics=metrics, tags=tags, at_ms=event.at_ms)
        if split == "validation":
            self._board.add_proof(event.payload["point_id"], proof)

    def _write_timing(self, event: Event) -> None:
        run, device = self._known_point(event), event.payload["device"]
        known = timed_devices(run)
        if device in known:
            log.warning("Timings of %s were logged before; the first stay.", event.key)
            return
        path = self._spool.files(event) / glossary.TIMINGS
        self._runs.client.log_artifact(run.info.run_id, str(path), timings_folder(device))
        timings = read_timings(path)
        metrics = {name: value for timing in timings for name, value in timing.metrics.items()}
        tags = {glossary.TIMED: " ".join([*known, device])}
        self._runs.write(run, metrics=metrics, tags=tags, at_ms=event.at_ms)
        self._board.add_timings(event.payload["point_id"], timings)

    def _known_point(self, event: Event) -> Run:
        """Return the run of the point that an event adds to."""
        run = self._runs.find(event.payload["key"])
        if run is None:
            raise LookupError(f"Point {event.payload['key']} has a {event.kind} event and no run.")
        return run

    def _write_trial_end(self, event: Event) -> None:
        run = self._trial_run(event.payload["trial_key"], event.at_ms)
        if event.payload["error"]:
            self._runs.client.log_text(run.info.run_id, event.payload["error"], glossary.ERROR)
        if infeasible := event.payload.get("infeasible"):
            self._runs.client.set_tag(run.info.run_id, glossary.INFEASIBLE, infeasible)
        if run.info.status == "RUNNING":
            self._runs.end(run, event.payload["status"], event.at_ms)

    def _write_sweep_end(self, event: Event) -> None:
        """End the sweep's run, and as interrupted every trial whose end nobody reported."""
        status = event.payload["status"]
        for run in self._runs.search(kind="trial", sweep_id=self._sweep_id):
            if run.info.status == "RUNNING":
                own = "FINISHED" if status == "FINISHED" else "KILLED"
                self._runs.end(run, own, event.at_ms)
        self._runs.end(self._sweep_run(event.at_ms), status, event.at_ms)

    def _install_view(self, at_ms: int) -> None:
        """Install the saved view and link it from the experiment's description.

        The view's format is MLflow's own: failing to install it is no more than a pity.
        """
        client, experiment = self._runs.client, self.experiment_id
        try:
            value = view.view_value(self._sweep_id, at_ms)
            client.set_experiment_tag(experiment, view.view_tag(self._sweep_id), value)
            old = client.get_experiment(experiment).tags.get(glossary.NOTE, "")
            run_id = self._sweep_run(at_ms).info.run_id
            note = view.experiment_note(old, experiment, self._sweep_id, run_id)
            client.set_experiment_tag(experiment, glossary.NOTE, note)
        except Exception:
            log.warning("The saved view could not be installed.", exc_info=True)

    def _sweep_run(self, at_ms: int) -> Run:
        return self._run(
            self._sweep_id,
            name=self._sweep_id,
            tags={glossary.KIND: "sweep", glossary.SWEEP_ID: self._sweep_id},
            parent=None,
            at_ms=at_ms,
        )

    def _trial_run(self, trial_key: str, at_ms: int) -> Run:
        tags = {glossary.KIND: "trial", glossary.SWEEP_ID: self._sweep_id}
        return self._run(
            f"{self._sweep_id}/{trial_key}",
            name=f"trial {trial_key}",
            tags={**tags, glossary.TRIAL_KEY: trial_key},
            parent=self._sweep_run(at_ms).info.run_id,
            at_ms=at_ms,
        )

    def _point_run(self, point: OperatingPoint, at_ms: int) -> Run:
        penalty = "" if point.penalty is None else f", penalty {point.penalty:.3g}"
        tags = {
            glossary.KIND: "point",
            glossary.SWEEP_ID: self._sweep_id,
            glossary.TRIAL_KEY: point.trial_key,
            glossary.POINT_ID: point.point_id,
            glossary.METHOD: point.method,
            glossary.ON_FRONT: "false",
        }
        return self._run(
            point_key(point),
            name=f"{point.method}, {point.groups} groups{penalty} ({point.index})",
            tags=tags,
            parent=self._trial_run(point.trial_key, at_ms).info.run_id,
            at_ms=at_ms,
        )

    def _run(self, key: str, **new: Any) -> Run:
        """Return the run of a key, by its id if it was seen before."""
        if key in self._run_ids:
            return self._runs.client.get_run(self._run_ids[key])
        run = self._runs.find_or_create(key, **new)
        self._run_ids[key] = run.info.run_id
        return run


def take_point(board: Board, spool: Spool, event: Event) -> OperatingPoint:
    """Return the point of an event; a new one goes on the board, the only reading of its record.

    Raises:
        DataError: the record is unreadable, or of other images than the point.
    """
    point = OperatingPoint.from_json(json.dumps(event.payload))
    if point.point_id not in board:
        record = read_record(spool.files(event) / glossary.RECORD)
        if (record.split, len(record)) != (point.split, point.figures.images):
            raise DataError(
                f"Point {point.point_id} of {point.figures.images} {point.split} images has a "
                f"record of {len(record)} of {record.split}."
            )
        board.add(point, Evidence.of(record), Details.of(record))
    return point


def point_key(point: OperatingPoint) -> str:
    """Return the value of a point's tag ``frontier.key``."""
    return f"{point.sweep_id}/{point.trial_key}/{point.index}"


def _numbers(figures: Figures, prefix: str = "") -> dict[str, float]:
    """Return figures by metric name; one that is not finite is left out."""
    values = {metric.name: getattr(figures, metric.name) for metric in glossary.FIGURES}
    return {f"{prefix}{name}": float(v) for name, v in values.items() if v is not None}

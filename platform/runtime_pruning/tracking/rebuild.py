"""The way back: a sweep's points and records, read from MLflow alone."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.explanation import read_explanation
from runtime_pruning.frontier.points import OperatingPoint, derive
from runtime_pruning.frontier.proof import Controls, Proof, prove
from runtime_pruning.frontier.records import HeldOut, Judged, Record, read_record
from runtime_pruning.frontier.timings import PointTiming, read_timings
from runtime_pruning.tracking.runs import Runs
from runtime_pruning.tracking.storage import read_store
from runtime_pruning.tracking.view import page_path

RECORDS: dict[Judged, str] = {
    "policy": glossary.POLICY_RECORD,
    "validation": glossary.RECORD,
    "test": glossary.TEST_RECORD,
}


class StoredPoint(NamedTuple):
    """An operating point and the facts that it rests on."""

    point: OperatingPoint
    record: Record


def rebuild(uri: str, sweep_id: str) -> list[StoredPoint]:
    """Return a sweep's operating points with their records, in order of trial and index.

    Args:
        uri: the store, as the sweep's tracker had it.
        sweep_id: which sweep.

    Raises:
        DataError: no such sweep in the store.
        StoreUnavailableError: the server does not answer.
    """
    client = read_store(uri)
    for experiment in _experiment_ids(client):
        runs = Runs(client, experiment)
        if any(runs.search(kind="sweep", sweep_id=sweep_id)):
            stored = [load_point(client, run) for run in finished_points(runs, sweep_id)]
            return sorted(stored, key=lambda s: (s.point.trial_key, s.point.index))
    raise DataError(f"No sweep {sweep_id!r} is in the MLflow store at {uri}.")


def frontier_pages(uri: str) -> dict[str, str]:
    """Return where MLflow shows each sweep's page, behind the server's address, newest first."""
    client = read_store(uri)
    sweeps = [
        run
        for experiment in _experiment_ids(client)
        for run in Runs(client, experiment).search(kind="sweep")
    ]
    return {
        run.data.tags[glossary.SWEEP_ID]: page_path(run.info.experiment_id, run.info.run_id)
        for run in sorted(sweeps, key=lambda run: -run.info.start_time)
    }


def rebuild_test(uri: str, sweep_id: str) -> list[StoredPoint]:
    """Return what the policies that were chosen did to the test split, as points of that split.

    Raises:
        DataError: no such sweep in the store, or none of its points was tested.
        StoreUnavailableError: the server does not answer.
    """
    client = read_store(uri)
    tested = [
        StoredPoint(derive(record, read_point(client, run).provenance), record)
        for run in point_runs(client, sweep_id)
        if run.data.tags.get(glossary.TESTED) == "true"
        for record in [load_record(client, run, "test")]
    ]
    if not tested:
        raise DataError(f"No point of a sweep {sweep_id!r} has a record of the test split.")
    return tested


def load_record(client: MlflowClient, run: Run, split: Judged) -> Record:
    """Return what a point's policy did to a split.

    Raises:
        DataError: the test split was not read for that point, or it is of an earlier version that
            kept nothing of the policy split.
    """
    if split == "policy" and not any(
        file.path == glossary.POLICY_RECORD for file in client.list_artifacts(run.info.run_id)
    ):
        raise DataError(f"Run {run.info.run_id} has no record of the policy split.")
    if split == "test" and run.data.tags.get(glossary.TESTED) != "true":
        raise DataError(f"Run {run.info.run_id} has no record of the test split.")
    name = RECORDS[split]
    with tempfile.TemporaryDirectory() as folder:
        return read_record(download(client, run, name, folder))


def rebuild_proofs(uri: str, sweep_id: str, split: HeldOut) -> dict[str, Proof]:
    """Return, by point id, what the controls of a sweep's points show on a split.

    Raises:
        DataError: a point's ``dynamics.json`` says something else than the records.
    """
    client = read_store(uri)
    return {
        run.data.tags[glossary.POINT_ID]: load_proof(client, run, split)
        for run in point_runs(client, sweep_id)
        if verdict_tag(split) in run.data.tags
    }


def point_runs(client: MlflowClient, sweep_id: str) -> Iterator[Run]:
    """Yield the runs of a sweep's points that are wholly written, whatever the experiment."""
    for experiment in _experiment_ids(client):
        yield from finished_points(Runs(client, experiment), sweep_id)


def sweep_run(client: MlflowClient, sweep_id: str) -> Run | None:
    """Return a sweep's own run, whatever the experiment."""
    for experiment in _experiment_ids(client):
        for run in Runs(client, experiment).search(kind="sweep", sweep_id=sweep_id):
            return run
    return None


def find_point(client: MlflowClient, point_id: str) -> Run:
    """Return the run of a point, whatever its sweep.

    Raises:
        DataError: no point of that id is wholly written.
    """
    if re.fullmatch(r"[0-9a-f]{16}", point_id):
        for experiment in _experiment_ids(client):
            for run in Runs(client, experiment).search(kind="point", point_id=point_id):
                if run.info.status == "FINISHED":
                    return run
    raise DataError(
        f"A point is named by the 16 hexadecimal digits of its id, but none is called {point_id!r}."
    )


def read_sweep(client: MlflowClient, sweep_id: str) -> dict[str, Any]:
    """Return the settings that a sweep was started with.

    Raises:
        DataError: no such sweep, or it kept none.
    """
    run = sweep_run(client, sweep_id)
    if run is None:
        raise DataError(f"No sweep {sweep_id!r} is in the MLflow store.")
    if glossary.SWEEP not in {file.path for file in client.list_artifacts(run.info.run_id)}:
        raise DataError(f"Sweep {sweep_id!r} has no {glossary.SWEEP} in the store.")
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = json.loads(
            download(client, run, glossary.SWEEP, folder).read_text()
        )
    if "dataset" not in settings:
        raise DataError(f"The {glossary.SWEEP} of sweep {sweep_id!r} names no dataset.")
    return settings


def load_proof(client: MlflowClient, run: Run, split: HeldOut) -> Proof:
    """Return what the controls beside a run's record show, derived from their records anew.

    Raises:
        DataError: ``dynamics.json`` says something else, by the rule that gains are found by today.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = download(client, run, dynamics_folder(split), name)
        proof = prove(load_record(client, run, split), Controls.read(folder))
        written = read_explanation(folder).proof
        if written.rule == proof.rule and written != proof:
            raise DataError(f"Run {run.info.run_id} has gains that its controls do not give.")
        return proof


def read_proof(client: MlflowClient, run: Run, split: HeldOut) -> Proof:
    """Return what a run says that its controls show, as it was derived when they were measured."""
    artifact = f"{dynamics_folder(split)}/{glossary.DYNAMICS_FILE}"
    with tempfile.TemporaryDirectory() as folder:
        return read_explanation(download(client, run, artifact, folder).parent).proof


def rebuild_timings(uri: str, sweep_id: str) -> dict[str, list[PointTiming]]:
    """Return, by point id, how fast a sweep's points were, on every device that timed them."""
    client = read_store(uri)
    return {
        run.data.tags[glossary.POINT_ID]: load_timings(client, run)
        for run in point_runs(client, sweep_id)
        if timed_devices(run)
    }


def load_timings(client: MlflowClient, run: Run) -> list[PointTiming]:
    """Return all timings of a run's point."""
    found: list[PointTiming] = []
    for device in timed_devices(run):
        with tempfile.TemporaryDirectory() as folder:
            artifact = f"{timings_folder(device)}/{glossary.TIMINGS}"
            found += read_timings(download(client, run, artifact, folder))
    return found


def timed_devices(run: Run) -> list[str]:
    """Return the keys of the devices that a run's point was timed on."""
    return str(run.data.tags.get(glossary.TIMED, "")).split()


def timings_folder(device: str) -> str:
    """Return the artifact that holds a point's timings on a device."""
    return f"{glossary.TIMINGS_FOLDER}/{device}"


def dynamics_folder(split: HeldOut) -> str:
    """Return the artifact that holds the records of a point's controls on a split."""
    return glossary.TEST_DYNAMICS if split == "test" else glossary.DYNAMICS


def verdict_tag(split: HeldOut) -> str:
    """Return the tag that says what the controls showed on a split."""
    return glossary.TEST_VERDICT if split == "test" else glossary.VERDICT


def finished_points(runs: Runs, sweep_id: str) -> Iterator[Run]:
    """Yield the runs of a sweep's points that are wholly written."""
    for run in runs.search(kind="point", sweep_id=sweep_id):
        if run.info.status == "FINISHED":
            yield run


def load_point(client: MlflowClient, run: Run) -> StoredPoint:
    """Return the point that a run holds with its record.

    Raises:
        DataError: the record does not give the point's figures.
    """
    point, record = read_point(client, run), load_record(client, run, "validation")
    point.check_against(record)
    return StoredPoint(point, record)


def read_point(client: MlflowClient, run: Run) -> OperatingPoint:
    """Return the point that a run holds, with the figures that it was stored with."""
    with tempfile.TemporaryDirectory() as folder:
        return OperatingPoint.from_json(download(client, run, glossary.POINT, folder).read_text())


def download(client: MlflowClient, run: Run, artifact: str, folder: str) -> Path:
    """Return a local copy of a run's artifact, without a progress bar for each small file."""
    shown = MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get_raw()
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    try:
        return Path(client.download_artifacts(run.info.run_id, artifact, folder))
    finally:
        if shown is None:
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.unset()
        else:
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(shown)


def _experiment_ids(client: MlflowClient) -> Iterator[str]:
    """Yield the ids of all experiments."""
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        yield from (experiment.experiment_id for experiment in page)
        token = page.token
        if not token:
            return

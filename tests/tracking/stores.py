"""What tests of the tracker do with it and its store."""

from mlflow import MlflowClient
from mlflow.entities import Run

from runtime_pruning import glossary
from runtime_pruning.frontier import OperatingPoint, Record, write_record
from runtime_pruning.tracking.mlflow_store import FrontierTracker


def log_point(tracker: FrontierTracker, measured: tuple[OperatingPoint, Record]) -> None:
    """Log through a file that is gone as soon as the call is back."""
    point, record = measured
    path = tracker._spool_dir.parent / "record-of-the-trial.parquet"
    write_record(record, path)
    tracker.log_point(point, path)
    path.unlink()
    settle(tracker)


def settle(tracker: FrontierTracker) -> None:
    """Wait until the tracker's thread has done what it was asked for."""
    tracker._thread.submit(bool).result()


def runs_of(uri: str, kind: str) -> list[Run]:
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`frontier.kind` = '{kind}'"))


def by_id(uri: str) -> dict[str, Run]:
    return {run.data.tags[glossary.POINT_ID]: run for run in runs_of(uri, "point")}

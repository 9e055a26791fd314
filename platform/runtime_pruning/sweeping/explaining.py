"""What recorded points look at, from MLflow alone: controls are read back, or measured if absent.

Controls of the test split are never measured here: that split is read once, at a sweep's end.
"""

from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from runtime_pruning import datasets, glossary
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.deploy import read_bundle
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dynamics import Dynamics
from runtime_pruning.frontier.records import HeldOut, Record
from runtime_pruning.frontier.summary import DENSE
from runtime_pruning.sweeping.config import ProofConfig
from runtime_pruning.sweeping.proving import Subject, measure_controls, write_dynamics
from runtime_pruning.tracking.rebuild import (
    download,
    dynamics_folder,
    load_record,
    point_runs,
    read_point,
    read_sweep,
    verdict_tag,
)
from runtime_pruning.tracking.storage import read_store

_EVAL_BATCH = 256


def explain_sweep(
    uri: str,
    sweep_id: str,
    out: Path,
    *,
    point_id: str | None = None,
    split: HeldOut = "validation",
    data_dir: Path | None = None,
) -> Iterator[tuple[Path, Dynamics]]:
    """Write, per point, the records of its controls, numbers and pictures; yield each folder.

    Args:
        uri: the store.
        sweep_id: whose points.
        out: gets a folder per point, named by its id.
        point_id: this point only, its controls measured if they never were; None takes all points
            that have controls.
        split: on which images.
        data_dir: where the dataset's files lie.

    Raises:
        DataError: no such point, or none with controls; or controls of the test split are absent.
    """
    client = read_store(uri)
    runs = list(point_runs(client, sweep_id))
    chosen = [run for run in runs if _is_asked_for(run, point_id, split)]
    if not chosen:
        raise DataError(
            f"Sweep {sweep_id!r} holds no point {point_id!r}."
            if point_id
            else f"No point of a sweep {sweep_id!r} has controls on the {split} split; name one."
        )
    settings = read_sweep(client, sweep_id).get("dataset_settings")
    data = datasets.load(read_point(client, chosen[0]).dataset, data_dir, settings)
    dense = _dense_record(client, runs, split)
    for run in chosen:
        yield _explain(client, run, out, split, data, dense)


def _is_asked_for(run: Run, point_id: str | None, split: HeldOut) -> bool:
    if point_id is None:
        return verdict_tag(split) in run.data.tags
    return bool(run.data.tags[glossary.POINT_ID] == point_id)


def _explain(
    client: MlflowClient,
    run: Run,
    out: Path,
    split: HeldOut,
    data: ImageDataset,
    dense: Record | None,
) -> tuple[Path, Dynamics]:
    """Fill the folder of one point."""
    point, record = read_point(client, run), load_record(client, run, split)
    folder = out / point.point_id
    folder.mkdir(parents=True, exist_ok=True)
    if verdict_tag(split) in run.data.tags:
        download(client, run, dynamics_folder(split), str(folder)).rename(folder / split)
    elif split == "test":
        raise DataError(f"Point {point.point_id} has no controls on the test split.")
    else:
        bundle = read_bundle(download(client, run, glossary.BUNDLE, str(folder)))
        subject = Subject(point=point, record=record, bundle=bundle, data=data)
        measure_controls(subject, folder / split, ProofConfig(), _EVAL_BATCH)
    return folder / split, write_dynamics(point, record, dense, data, folder / split)


def _dense_record(client: MlflowClient, runs: list[Run], split: HeldOut) -> Record | None:
    """Return the dense network's record on a split, if there is one."""
    for run in runs:
        tags = run.data.tags
        known = split == "validation" or tags.get(glossary.TESTED) == "true"
        if tags[glossary.METHOD] == DENSE and known:
            return load_record(client, run, split)
    return None

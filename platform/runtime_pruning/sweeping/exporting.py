"""From a point in MLflow to a bundle that can be sent away."""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Run

from runtime_pruning import datasets, glossary
from runtime_pruning.datasets import ImageDataset, to_float
from runtime_pruning.deploy.card import Card
from runtime_pruning.deploy.export import Origin, Shipment, export_bundle, refuse_filled, timed
from runtime_pruning.deploy.reading import read_bundle
from runtime_pruning.deploy.timing import time_bundle
from runtime_pruning.frontier.points import derive
from runtime_pruning.timing.device import this_device
from runtime_pruning.tracking.rebuild import (
    download,
    find_point,
    load_record,
    load_timings,
    point_runs,
    read_point,
    read_sweep,
)
from runtime_pruning.tracking.storage import read_store

DialFrom = Literal["trial", "sweep", "none"]
TIMED_IMAGES = 64


def export_point(
    uri: str,
    point_id: str,
    out: Path,
    *,
    dial: DialFrom = "trial",
    licence: str = "not stated",
    time_here: bool = False,
    data_dir: Path | None = None,
) -> Card:
    """Write the bundle of a point that a store holds, and return its card.

    Figures are those of the test split where all points of the dial were tested, else validation's.

    Args:
        uri: the store.
        point_id: of the point.
        out: folder of the bundle; empty or absent.
        dial: which other points the bundle can be turned to: those of the point's trial, of the
            whole sweep's front, or none.
        licence: of the weights.
        time_here: time all of them on this device, one image at a time.
        data_dir: folder of the dataset.

    Raises:
        DataError: no such point.
        ConfigError: the folder holds something.
    """
    refuse_filled(out)
    client = read_store(uri)
    run = find_point(client, point_id)
    sweep_id = run.data.tags[glossary.SWEEP_ID]
    settings = dict(read_sweep(client, sweep_id).get("dataset_settings") or {})
    point = read_point(client, run)
    data = datasets.load(point.dataset, data_dir, settings)
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        runs = [run, *_others(client, run, dial)]
        tested = all(each.data.tags.get(glossary.TESTED) == "true" for each in runs)
        split: Literal["validation", "test"] = "test" if tested else "validation"
        shipments = [_shipment(client, each, split, Path(name)) for each in runs]
        if time_here:
            shipments = [_timed(each, data) for each in shipments]
        origin = _origin(run, point.dataset, settings, data, licence)
        validation = load_record(client, run, "validation")
        return export_bundle(out, shipments, point_id, origin, validation)


def _origin(
    run: Run, dataset: str, settings: dict[str, Any], data: ImageDataset, licence: str
) -> Origin:
    return Origin(
        dataset=dataset,
        settings=settings,
        classes=data.info.classes,
        images_NCHW=data.validation.images_NCHW[:64],
        licence=licence,
        provenance={
            "content": data.content_hash(),
            "mlflow_run": run.info.run_id,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _others(client: MlflowClient, run: Run, dial: DialFrom) -> Sequence[Run]:
    """Return the runs of the other points of a dial."""
    if dial == "none":
        return []
    tags = run.data.tags
    return [
        each
        for each in point_runs(client, tags[glossary.SWEEP_ID])
        if each.info.run_id != run.info.run_id
        and (
            each.data.tags[glossary.TRIAL_KEY] == tags[glossary.TRIAL_KEY]
            if dial == "trial"
            else each.data.tags.get(glossary.ON_FRONT) == "true"
        )
    ]


def _shipment(
    client: MlflowClient, run: Run, split: Literal["validation", "test"], folder: Path
) -> Shipment:
    """Return a point with its files, downloaded into a folder of its own."""
    own = folder / run.info.run_id
    own.mkdir()
    record = load_record(client, run, split)
    return Shipment(
        folder=download(client, run, glossary.BUNDLE, str(own)),
        point=derive(record, read_point(client, run).provenance),
        record=record,
        timings=tuple(load_timings(client, run)),
    )


def _timed(shipment: Shipment, data: ImageDataset) -> Shipment:
    """Return a point with what one image at a time takes here."""
    images_NCHW = to_float(data.validation.images_NCHW[:TIMED_IMAGES])
    bundle = read_bundle(shipment.folder)
    (found,) = time_bundle(bundle, images_NCHW, [1])
    return timed(shipment, found.on(this_device()))

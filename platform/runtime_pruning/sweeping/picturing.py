"""Pictures of the images that a sweep's points were measured on, where they are at hand."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from runtime_pruning import datasets, glossary
from runtime_pruning.errors import DataError, UserError
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.tracking.rebuild import download, sweep_run
from runtime_pruning.tracking.storage import open_store

log = logging.getLogger(__name__)


def pictures_of(uri: str, sweep_id: str, data_dir: Path | None = None) -> Thumbnails | None:
    """Return pictures of a sweep's validation images; None where the dataset cannot be read.

    Args:
        uri: the store, which knows the dataset and its settings.
        sweep_id: which sweep.
        data_dir: where the dataset's files lie.
    """
    try:
        settings = sweep_settings(uri, sweep_id)
        data = datasets.load(settings["dataset"], data_dir, **settings.get("dataset_settings", {}))
    except UserError as error:
        log.warning("The page shows no images: %s", error)
        return None
    return Thumbnails(data.validation)


def sweep_settings(uri: str, sweep_id: str) -> dict[str, Any]:
    """Return the configuration that a sweep was started with, as the store holds it.

    Raises:
        DataError: no such sweep, or it kept none.
    """
    client = open_store(uri)
    run = sweep_run(client, sweep_id)
    if run is None:
        raise DataError(f"No sweep {sweep_id!r} is in the MLflow store at {uri}.")
    if glossary.SWEEP not in {file.path for file in client.list_artifacts(run.info.run_id)}:
        raise DataError(f"Sweep {sweep_id!r} has no {glossary.SWEEP} in the store.")
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = json.loads(
            download(client, run, glossary.SWEEP, folder).read_text()
        )
    if "dataset" not in settings:
        raise DataError(f"The {glossary.SWEEP} of sweep {sweep_id!r} names no dataset.")
    return settings

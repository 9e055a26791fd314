"""Pictures of the images that a sweep's points were measured on, where they are at hand."""

import logging
from pathlib import Path

from runtime_pruning import datasets
from runtime_pruning.errors import UserError
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.tracking.rebuild import read_sweep
from runtime_pruning.tracking.storage import read_store

log = logging.getLogger(__name__)


def pictures_of(uri: str, sweep_id: str, data_dir: Path | None = None) -> Thumbnails | None:
    """Return pictures of a sweep's validation images; None where the dataset cannot be read.

    Args:
        uri: the store, which knows the dataset and its settings.
        sweep_id: which sweep.
        data_dir: where the dataset's files lie.
    """
    try:
        settings = read_sweep(read_store(uri), sweep_id)
        data = datasets.load(settings["dataset"], data_dir, settings.get("dataset_settings"))
    except UserError as error:
        log.warning("The page shows no images: %s", error)
        return None
    return Thumbnails(data.validation)

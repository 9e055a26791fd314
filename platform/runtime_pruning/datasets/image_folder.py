"""The user's own photographs: a folder per class, or Parquet files; see `folder` and `parquet`.

The images stay where they are and are decoded when they are read; every machine of a cluster must
see their folder under the same path (and the cache folder, where they are Parquet).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict

from runtime_pruning.config import build_config
from runtime_pruning.datasets.catalogue import DATA_ENV, register
from runtime_pruning.datasets.decoding import Fit
from runtime_pruning.datasets.folder import list_files
from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.listing import PARTS, ImageListing
from runtime_pruning.datasets.parquet import list_parquet, parquet_files
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    S,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.datasets.splitting import SourceParts, stratified_split
from runtime_pruning.datasets.stored import ImageStore, StoredImages
from runtime_pruning.errors import DataError

NAME = "image-folder"
CHECKED = 5_000  # headers that are looked at before anything starts


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig:
    """Settings of the dataset.

    Attributes:
        image_size: pixels of each side, whatever the files have.
        fit: ``crop`` keeps the centre of an image, ``stretch`` all of it.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    image_size: int = 224
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"`image_size >= 1` must hold, but got {self.image_size}.")


@register(NAME)
def load_image_folder(data_dir: Path | None = None, **settings: Any) -> ImageDataset:
    """Return the images of a folder; splits that it does not have are made, see `stratified_split`.

    Args:
        data_dir: the folder.
        settings: see `ImageFolderConfig`.

    Raises:
        ConfigError: a setting that does not exist or is out of its range.
        DataError: no folder, or something in it cannot be used; the message names it.
    """
    config = build_config(ImageFolderConfig, settings, where=f"Dataset {NAME!r}")
    if data_dir is None:
        raise DataError(f"The dataset {NAME!r} needs a folder: give one, or set {DATA_ENV} to it.")
    parts = parquet_files(data_dir)
    listing = list_parquet(parts) if parts else list_files(data_dir)
    store = ImageStore(listing.encoded, config.image_size, config.fit)
    looked_at = np.unique(np.linspace(0, len(store.encoded) - 1, CHECKED).astype(np.int64))
    store.check(looked_at)
    return _dataset(listing, store)


def _dataset(listing: ImageListing, store: ImageStore) -> ImageDataset:
    """Return the four splits over one store; an image's id is its row there."""
    rows = stratified_split(
        SourceParts(listing.labels_N, *(listing.rows(part) for part in PARTS)), listing.classes
    )
    content = hashlib.sha256(f"{listing.key}\n{store.size} {store.fit}".encode()).hexdigest()[:16]
    info = DatasetInfo(NAME, listing.classes, store.image_shape, content)

    def split(kind: type[S], rows_N: Int64Array) -> S:
        return kind.from_arrays(info, StoredImages(store, rows_N), listing.labels_N[rows_N], rows_N)

    return ImageDataset(
        info,
        split(TrainingSplit, rows.training),
        split(PolicySplit, rows.policy),
        split(ValidationSplit, rows.validation),
        split(TestSplit, rows.test),
    )

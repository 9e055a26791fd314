"""The user's own photographs: a folder per class, or Parquet files; see `folder` and `parquet`.

Before anything starts, all images are decoded once; see `inspection`.
The images stay where they are and are decoded when they are read; every machine of a cluster must
see their folder under the same path (and the cache folder, where they are Parquet).
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runtime_pruning.config import Count, build_config, config_class
from runtime_pruning.datasets.catalogue import DATA_ENV, register
from runtime_pruning.datasets.decoding import Fit
from runtime_pruning.datasets.folder import list_files
from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.inspection import Damaged, inspect
from runtime_pruning.datasets.listing import ImageListing, printable
from runtime_pruning.datasets.parquet import list_parquet, parquet_files
from runtime_pruning.datasets.parts import PARTS
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    S,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.datasets.splitting import SourceParts, SplitRows, stratified_split
from runtime_pruning.datasets.stored import HASH_BYTES, ImageStore, StoredImages
from runtime_pruning.errors import DataError

NAME = "image-folder"

log = logging.getLogger(__name__)


@config_class
class ImageFolderConfig:
    """Settings of the dataset.

    Attributes:
        image_size: pixels of each side, whatever the files have.
        fit: ``crop`` keeps the centre of an image, ``stretch`` all of it.
        damaged: ``refuse`` the dataset if an image cannot be decoded, or ``skip`` such images,
            which are then listed.
    """

    image_size: Count = 224
    fit: Fit = "crop"
    damaged: Damaged = "refuse"


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
    _split_rows(listing, {})  # what is wrong with their numbers is said at once
    inspection = inspect(listing)
    if config.damaged == "refuse":
        inspection.refuse()
    inspection.warn()
    store = ImageStore(listing.encoded, config.image_size, config.fit, hash_NX=inspection.hash_NX)
    rows = _split_rows(listing, inspection.faults)
    _warn_of_copies(store, rows)
    return _dataset(listing, store, rows)


def _split_rows(listing: ImageListing, left_out: Iterable[int]) -> SplitRows:
    """Return the rows of the four splits without some rows."""
    without = np.array(sorted(left_out), np.int64)
    parts = (np.setdiff1d(listing.rows(part), without) for part in PARTS)
    return stratified_split(SourceParts(listing.labels_N, *parts), listing.classes)


def _warn_of_copies(store: ImageStore, rows: SplitRows) -> None:
    """Say which held-out images are copies of training images, byte for byte."""
    training = _hashes(store, rows.training)
    for split, held_out in zip(rows._fields[1:], rows[1:], strict=True):
        place_N = pc.index_in(_hashes(store, held_out), training)
        if copies := len(place_N) - place_N.null_count:
            first = int(np.flatnonzero(place_N.is_valid().to_numpy(zero_copy_only=False))[0])
            name = store.encoded.name
            log.warning(
                "%d of %d %s images are copies of training images, such as %s of %s.",
                copies,
                len(place_N),
                split,
                printable(name(int(held_out[first]))),
                printable(name(int(rows.training[place_N[first].as_py()]))),
            )


def _hashes(store: ImageStore, rows_N: Int64Array) -> pa.Array:
    """Return the hashes of images as one Arrow array."""
    content = pa.py_buffer(store.hashes(rows_N))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(HASH_BYTES), len(rows_N), [None, content])


def _dataset(listing: ImageListing, store: ImageStore, rows: SplitRows) -> ImageDataset:
    """Return the four splits over one store; an image's id is its row there."""
    info = DatasetInfo(NAME, listing.classes, store.image_shape)

    def split(kind: type[S], rows_N: Int64Array) -> S:
        return kind.from_arrays(info, StoredImages(store, rows_N), listing.labels_N[rows_N], rows_N)

    return ImageDataset(
        info,
        split(TrainingSplit, rows.training),
        split(PolicySplit, rows.policy),
        split(ValidationSplit, rows.validation),
        split(TestSplit, rows.test),
    )

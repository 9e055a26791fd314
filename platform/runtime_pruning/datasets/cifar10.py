"""CIFAR-10: 60,000 colour photographs, 32x32 pixels, ten classes.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
Read from ``cifar10-train.parquet`` and ``cifar10-test.parquet`` (columns ``image``, a PNG in
binary, and ``label``) where a folder is given; else downloaded once into a cache folder.
"""

import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runtime_pruning.datasets.cache import cache_folder, cached_table
from runtime_pruning.datasets.catalogue import DATA_ENV, register
from runtime_pruning.datasets.png import decode_pngs
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    Int64Array,
    PolicySplit,
    Split,
    TestSplit,
    TrainingSplit,
    UInt8Array,
    ValidationSplit,
)
from runtime_pruning.errors import DataError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
INFO = DatasetInfo("cifar10", CLASSES, (3, 32, 32))


class Sizes(NamedTuple):
    """Images per split; the first three are cut, in this order, from the training file."""

    training: int = 40_000
    policy: int = 5_000
    validation: int = 5_000
    test: int = 10_000


class LabelledImages(NamedTuple):
    """The content of one file, in its order."""

    images_NCHW: UInt8Array
    labels_N: Int64Array


@register("cifar10")
def load_cifar10(data_dir: Path | None = None) -> ImageDataset:
    """Return CIFAR-10; the training file's last 10,000 images are the policy and validation splits.

    Args:
        data_dir: folder of the two Parquet files; None downloads 170 MB (once) into the folder that
            ``RUNTIME_PRUNING_CACHE`` names, by default ``~/.cache/runtime-pruning``.

    Raises:
        DataError: a file or column is missing or malformed, or the download failed.
    """
    if data_dir is None:
        return cut(*download(cache_folder()))
    return cut(
        read_parquet(data_dir / "cifar10-train.parquet"),
        read_parquet(data_dir / "cifar10-test.parquet"),
    )


def cut(train: LabelledImages, test: LabelledImages, sizes: Sizes | None = None) -> ImageDataset:
    """Return the four splits; ids count through the training file, then through the test file.

    Raises:
        DataError: a file does not hold as many images as its splits.
    """
    sizes = sizes or Sizes()
    in_train = sizes.training + sizes.policy + sizes.validation
    for name, found, wanted in (("training", train, in_train), ("test", test, sizes.test)):
        if len(found.labels_N) != wanted:
            raise DataError(
                f"CIFAR-10's {name} file must hold {wanted} images, but got {len(found.labels_N)}."
            )
    policy_end = sizes.training + sizes.policy
    ids_N = np.arange(in_train, dtype=np.int64)
    first, middle, last = (
        (train.images_NCHW[part], train.labels_N[part], ids_N[part])
        for part in (
            slice(0, sizes.training),
            slice(sizes.training, policy_end),
            slice(policy_end, in_train),
        )
    )
    return ImageDataset(
        INFO,
        TrainingSplit.from_arrays(INFO, *first),
        PolicySplit.from_arrays(INFO, *middle),
        ValidationSplit.from_arrays(INFO, *last),
        TestSplit.from_arrays(INFO, *test, in_train + np.arange(sizes.test)),
    )


def read_parquet(path: Path, cache: Path | None = None) -> LabelledImages:
    """Decode one Parquet file of PNGs, with a progress bar; the next time, map what was decoded.

    Args:
        path: of the file.
        cache: folder of decoded files; by default ``decoded`` in the user's cache folder.

    Raises:
        DataError: no such file, no Parquet, a column is missing or of another type, a cell is
            empty, or an image is no 32x32 RGB PNG.
    """
    if not path.is_file():
        raise DataError(
            f"CIFAR-10 needs the file {str(path)!r}: no such file. Leave out the data folder "
            f"(and {DATA_ENV}) to download it instead."
        )
    table = cached_table(
        path, cache or cache_folder() / "decoded", INFO.schema, lambda: _decode(path)
    )
    split = Split(INFO, table)
    return LabelledImages(split.images_NCHW, split.labels_N)


def _decode(path: Path) -> pa.Table:
    """Return a Parquet file's rows as a split's table, ids counting from 0."""
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{str(path)!r} must be a Parquet file: {error}") from error
    _check_column(path, schema, "image", pa.types.is_binary, "binary (a PNG)")
    _check_column(path, schema, "label", pa.types.is_integer, "an integer")
    table = pq.read_table(path, columns=["image", "label"])
    if nulls := table["image"].null_count + table["label"].null_count:
        raise DataError(f"{str(path)!r} must have no empty cell, but got {nulls}.")
    images_NCHW = decode_pngs(table["image"].to_pylist(), INFO.image_shape, what=path.name)
    return Split.from_arrays(INFO, images_NCHW, table["label"].to_numpy()).table


def _check_column(path: Path, schema: pa.Schema, name: str, is_right: Any, wanted: str) -> None:
    """Raise where a column is missing or of another type."""
    if name not in schema.names:
        raise DataError(f"{str(path)!r} must have a column {name!r}, but has {schema.names}.")
    found = schema.field(name).type
    if not is_right(found):
        raise DataError(f"Column {name!r} of {str(path)!r} must be {wanted}, but is {found}.")


def download(folder: Path, source: Any = None) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and the test file, fetched by torchvision unless they are there already.

    Args:
        folder: where the archive is kept; created.
        source: torchvision's dataset class, which knows address and checksums; its ``CIFAR10`` by
            default.

    Raises:
        DataError: the archive cannot be fetched or does not match its checksum.
    """
    from torchvision.datasets import CIFAR10  # takes seconds to import

    fetch = source or CIFAR10
    try:
        parts = [fetch(folder, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, tarfile.TarError) as error:
        raise DataError(
            f"CIFAR-10 could not be downloaded into {str(folder)!r}: {error} Give a folder with "
            f"cifar10-train.parquet and cifar10-test.parquet, or set {DATA_ENV}."
        ) from error
    train, test = (
        LabelledImages(
            np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),  # stored as N, H, W, C
            np.asarray(part.targets, dtype=np.int64),
        )
        for part in parts
    )
    return train, test

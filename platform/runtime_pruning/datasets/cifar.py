"""What CIFAR-10 and CIFAR-100 share: 50,000 training and 10,000 test photographs, 32x32 pixels.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
Read from ``<name>-train.parquet`` and ``<name>-test.parquet`` (columns ``image``, a PNG in
binary, and ``label``) where a folder is given; else downloaded once into a cache folder.

Dimensions: N images, C channels, H W pixels.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runtime_pruning.datasets.cache import cache_folder, cached_table, key_of
from runtime_pruning.datasets.catalogue import DATA_ENV
from runtime_pruning.datasets.images import Int64Array, UInt8Array
from runtime_pruning.datasets.parquet import check_column, read_schema, reading
from runtime_pruning.datasets.png import decode_pngs
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    Split,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.errors import DataError


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


@dataclass(frozen=True)
class Cifar:
    """One of the two datasets.

    Attributes:
        info: its name, of which the files' names are made, and its classes.
        title: what its authors and messages call it.
        archive: torchvision's class, which knows address, checksums and form of the download.
    """

    info: DatasetInfo
    title: str
    archive: str

    def load(self, data_dir: Path | None = None) -> ImageDataset:
        """Return the dataset; the training file's last 10,000 images are policy and validation.

        Args:
            data_dir: folder of the two Parquet files; None downloads 170 MB (once) into the folder
                that ``RUNTIME_PRUNING_CACHE`` names, by default ``~/.cache/runtime-pruning``.

        Raises:
            DataError: a file or column is missing or malformed, or the download failed.
        """
        if data_dir is None:
            return self.cut(*self.download(cache_folder()))
        train, test = (self.read_parquet(data_dir / file) for file in self.files)
        return self.cut(train, test)

    @property
    def files(self) -> tuple[str, str]:
        """Names of the training and the test file."""
        return f"{self.info.name}-train.parquet", f"{self.info.name}-test.parquet"

    def cut(
        self, train: LabelledImages, test: LabelledImages, sizes: Sizes | None = None
    ) -> ImageDataset:
        """Return the four splits; ids count through the training file, then through the test file.

        Raises:
            DataError: a file does not hold as many images as its splits.
        """
        sizes = sizes or Sizes()
        in_train = sizes.training + sizes.policy + sizes.validation
        for name, found, wanted in (("training", train, in_train), ("test", test, sizes.test)):
            if len(found.labels_N) != wanted:
                raise DataError(
                    f"{self.title}'s {name} file must hold {wanted} images, "
                    f"but got {len(found.labels_N)}."
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
            self.info,
            TrainingSplit.from_arrays(self.info, *first),
            PolicySplit.from_arrays(self.info, *middle),
            ValidationSplit.from_arrays(self.info, *last),
            TestSplit.from_arrays(self.info, *test, in_train + np.arange(sizes.test)),
        )

    def read_parquet(self, path: Path, cache: Path | None = None) -> LabelledImages:
        """Decode a Parquet file of PNGs, with a progress bar; the next time, map what was decoded.

        Args:
            path: of the file.
            cache: folder of decoded files; by default ``decoded`` in the user's cache folder.

        Raises:
            DataError: no such file, no Parquet, a column is missing or of another type, a cell is
                empty, or an image is no 32x32 RGB PNG.
        """
        if not path.is_file():
            raise DataError(
                f"{self.title} needs the file {str(path)!r}: no such file. Leave out the data "
                f"folder (and {DATA_ENV}) to download it instead."
            )
        folder = cache or cache_folder() / "decoded"
        kept = folder / f"{path.stem}-{key_of(path)}.arrow"
        table = cached_table(kept, self.info.schema, lambda: self._decode(path))
        split = Split(self.info, table)
        return LabelledImages(split.images_NCHW[:], split.labels_N)

    def _decode(self, path: Path) -> pa.Table:
        """Return a Parquet file's rows as a split's table, ids counting from 0."""
        schema = read_schema(path)
        check_column(path, schema, "image", pa.types.is_binary, "binary (a PNG)")
        check_column(path, schema, "label", pa.types.is_integer, "an integer")
        with reading(path):
            table = pq.read_table(path, columns=["image", "label"])
        if nulls := table["image"].null_count + table["label"].null_count:
            raise DataError(f"{str(path)!r} must have no empty cell, but got {nulls}.")
        pngs = table["image"].to_pylist()
        images_NCHW = decode_pngs(pngs, self.info.image_shape, what=path.name)
        return Split.from_arrays(self.info, images_NCHW, table["label"].to_numpy()).table

    def download(self, folder: Path, source: Any = None) -> tuple[LabelledImages, LabelledImages]:
        """Return the training and the test file, fetched unless they are there already.

        Args:
            folder: where the archive is kept; created.
            source: a dataset class in the form of torchvision's; by default `archive` names it.

        Raises:
            DataError: the archive cannot be fetched or does not match its checksum.
        """
        from torchvision import datasets as torchvision_datasets  # takes seconds to import

        fetch = source or getattr(torchvision_datasets, self.archive)
        try:
            parts = [fetch(folder, train=train, download=True) for train in (True, False)]
        except (OSError, RuntimeError, tarfile.TarError) as error:
            raise DataError(
                f"{self.title} could not be downloaded into {str(folder)!r}: {error} Give a folder "
                f"with {' and '.join(self.files)}, or set {DATA_ENV}."
            ) from error
        train, test = (
            LabelledImages(
                np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),  # stored as N, H, W, C
                np.asarray(part.targets, dtype=np.int64),
            )
            for part in parts
        )
        return train, test

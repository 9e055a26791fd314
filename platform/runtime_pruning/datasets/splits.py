"""Splits of an image dataset as types, each an Arrow table that travels without being copied.

Dimensions: N images of a split, C channels, H W pixels.

A split pickles (protocol 5) into a few hundred bytes and three raw buffers. Ray's object store
keeps the buffers in shared memory: all workers of a node read the same pages, and none owns a copy.
Where the images are too many for memory they are `LazyImages`, and only their addresses travel.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pruning_envs import Images
from runtime_pruning.datasets.images import Int64Array, LazyImages
from runtime_pruning.errors import DataError

# Counts changes to what `Split.content_hash` makes of the same content.
CONTENT_VERSION = 1


@dataclass(frozen=True)
class DatasetInfo:
    """What all splits of a dataset have in common.

    Attributes:
        name: the name that the dataset is loaded by.
        classes: class names; label k is the k-th.
        image_shape: (C, H, W) of each image.
        sources: from ids of images to numbers of what they were made from, where one source gives
            several images: they are no independent evidence. A function of a module, since it
            travels; None where each image is a source of its own.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    sources: Callable[[Int64Array], Int64Array] | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise DataError(f"`classes` must be two or more, all different: {self.classes}.")
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise DataError(f"`image_shape` must be (C, H, W), each >= 1: {self.image_shape}.")

    @property
    def pixels(self) -> int:
        """Bytes of one image, ``C * H * W``."""
        return math.prod(self.image_shape)

    @property
    def schema(self) -> pa.Schema:
        """Columns of a split's table: id, raw pixels in C, H, W order, label."""
        return pa.schema(
            [("id", pa.int64()), ("image", pa.binary(self.pixels)), ("label", pa.int64())]
        )

    @property
    def label_schema(self) -> pa.Schema:
        """Columns of the table of a split whose images are not held in memory: id, label."""
        return self.schema.remove(self.schema.get_field_index("image"))


class Split:
    """Images with labels, of which the use is fixed by the subclass.

    Args:
        info: what the dataset is.
        table: of the schema ``info.schema``, one row per image, without nulls; of the schema
            ``info.label_schema`` where ``images`` are given.
        images: the pixels, where the table does not hold them.

    Raises:
        DataError: the table is of another form, is empty, or a label names no class.
    """

    def __init__(
        self, info: DatasetInfo, table: pa.Table, images: LazyImages | None = None
    ) -> None:
        schema = info.schema if images is None else info.label_schema
        if not table.schema.equals(schema):
            raise DataError(
                f"A split of {info.name!r} must have the columns {_one_line(schema)}, "
                f"but got {_one_line(table.schema)}."
            )
        if table.num_rows == 0:
            raise DataError(f"A split of {info.name!r} must hold at least one image.")
        self.info = info
        self.table = table.combine_chunks()
        self.ids_N: Int64Array = _view(self.table["id"], np.int64, ())
        self.images_NCHW: Images = (
            _view(self.table["image"], np.uint8, info.image_shape) if images is None else images
        )
        self.labels_N: Int64Array = _view(self.table["label"], np.int64, ())
        _check_labels(info, self.labels_N)
        _check_images(info, self.images_NCHW, len(self))

    @classmethod
    def from_arrays(
        cls,
        info: DatasetInfo,
        images: npt.ArrayLike | LazyImages,
        labels: npt.ArrayLike,
        ids: npt.ArrayLike | None = None,
    ) -> Self:
        """Return a split over arrays; uint8 images in one piece are not copied.

        Args:
            info: what the dataset is.
            images: uint8, shape (N, C, H, W), in memory or not.
            labels: integers in [0, classes), shape (N,).
            ids: integers that name the images, unique in the whole dataset; 0 to N - 1 by default.

        Raises:
            DataError: a wrong type or shape.
        """
        images_NCHW: Images = images if isinstance(images, LazyImages) else np.asarray(images)
        count = len(images_NCHW) if images_NCHW.ndim else 0
        _check_images(info, images_NCHW, count)
        labels_N = _int64_column("labels", labels, count)
        ids_N = _int64_column("ids", np.arange(count) if ids is None else ids, count)
        return _restore(cls, info, ids_N, images_NCHW, labels_N)

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return a split of the rows at ``indices`` (integers, any order), copied.

        Images that are not in memory stay where they are.

        Raises:
            IndexError: an index outside ``[0, len)``.
        """
        rows = np.asarray(indices, dtype=np.int64)
        table = self.table.take(pa.array(rows))
        return type(self)(self.info, table, self._lazy_images(rows))

    def head(self, n: int) -> Self:
        """Return the first ``n`` images, or all where there are fewer; nothing is copied.

        Raises:
            DataError: ``n`` is below one.
        """
        if n < 1:
            raise DataError(f"`n >= 1` must hold for the head of a split, but got {n}.")
        table = self.table.slice(0, n)
        return type(self)(self.info, table, self._lazy_images(np.arange(len(table))))

    @property
    def sources_N(self) -> Int64Array | None:
        """What each image was made from; None where each is a source of its own."""
        return None if self.info.sources is None else self.info.sources(self.ids_N)

    def content_hash(self) -> str:
        """Return 32 hexadecimal digits that tell these images and labels from all others.

        Any change of a pixel, a label, an id, the order or a class's name changes it; the machine,
        the folder and the dataset's name do not. Images in memory are hashed as pixels (CIFAR-10's
        four splits: 0.3 s), those that are not as `LazyImages.content_hash` says. It is computed
        once per split.
        """
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        shape = [CONTENT_VERSION, self.info.classes, self.info.image_shape]
        digest = hashlib.sha256(json.dumps(shape).encode())
        for column_N in (self.ids_N, self.labels_N):
            digest.update(np.ascontiguousarray(column_N, "<i8").data)
        images = self.images_NCHW
        if isinstance(images, LazyImages):
            digest.update(images.content_hash())
        else:
            digest.update(np.ascontiguousarray(images).data)
        return digest.hexdigest()[:32]

    def _lazy_images(self, rows: Int64Array) -> LazyImages | None:
        """Return the images at ``rows`` where they are not in the table."""
        images = self.images_NCHW
        return images.take(rows) if isinstance(images, LazyImages) else None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name!r}, {len(self)} images)"

    def __reduce__(self) -> tuple[Any, ...]:
        # numpy hands over its memory out-of-band, and only the rows of a slice, not its parent's.
        return _restore, (type(self), self.info, self.ids_N, self.images_NCHW, self.labels_N)


S = TypeVar("S", bound=Split)


class TrainingSplit(Split):
    """What the backbone learns on."""


class PolicySplit(Split):
    """What the decision network's rewards come from; the backbone has not learnt on it."""


class HeldOutSplit(Split):
    """What neither the backbone nor the decision network has learnt on: the evaluator's input."""


class ValidationSplit(HeldOutSplit):
    """What choices are made on."""


class TestSplit(HeldOutSplit):
    """What is read once, for the figures that are published."""

    __test__ = False  # not a test class, whatever its name tells pytest


@dataclass(frozen=True)
class ImageDataset:
    """Four splits of one dataset.

    Raises:
        DataError: a split is of the wrong type or of another dataset, or two share an image id.
    """

    info: DatasetInfo
    training: TrainingSplit
    policy: PolicySplit
    validation: ValidationSplit
    test: TestSplit

    def __post_init__(self) -> None:
        expected = (TrainingSplit, PolicySplit, ValidationSplit, TestSplit)
        for split, kind in zip(self.splits, expected, strict=True):
            if not isinstance(split, kind):
                raise DataError(f"Expected a {kind.__name__}, but got {split!r}.")
            if split.info != self.info:
                raise DataError(f"{split!r} must be of {self.info}, but is of {split.info}.")
        ids = np.concatenate([split.ids_N for split in self.splits])
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < len(ids):
            twice = unique[counts > 1][:5].tolist()
            raise DataError(f"No image may be in two places, but these ids are: {twice}.")

    @property
    def splits(self) -> tuple[TrainingSplit, PolicySplit, ValidationSplit, TestSplit]:
        """The four splits, in the order in which they are used."""
        return self.training, self.policy, self.validation, self.test

    def content_hash(self) -> str:
        """Return 32 hexadecimal digits made of all four splits'; see `Split.content_hash`."""
        parts = " ".join(split.content_hash() for split in self.splits)
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _restore(
    kind: type[S], info: DatasetInfo, ids_N: Int64Array, images_NCHW: Images, labels_N: Int64Array
) -> S:
    """Build a split over the memory that its arrays arrived in."""
    if isinstance(images_NCHW, LazyImages):
        return kind(info, _table(info.label_schema, ids_N, labels_N), images_NCHW)
    pixels = np.ascontiguousarray(images_NCHW)
    return kind(info, _table(info.schema, ids_N, pixels, labels_N))


def _table(schema: pa.Schema, *columns: npt.NDArray[Any]) -> pa.Table:
    """Wrap contiguous arrays in an Arrow table, without a copy."""
    arrays = [
        pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])
        for kind, column in zip(schema.types, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _view(column: pa.ChunkedArray, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return a read-only numpy view, shape (N, *shape), of a column of fixed-size values."""
    (array,) = column.chunks
    if array.null_count:
        raise DataError(f"`null_count == 0` must hold, but got {array.null_count}.")
    per_row = math.prod(shape)
    flat = np.frombuffer(array.buffers()[1], dtype)
    flat = flat[array.offset * per_row : (array.offset + len(array)) * per_row]
    view = flat.reshape(len(array), *shape)
    view.flags.writeable = False
    return view


def _int64_column(name: str, values: npt.ArrayLike, count: int) -> Int64Array:
    """Return contiguous int64 values, one per image, or say what they are instead."""
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (count,):
        raise DataError(
            f"`{name}` must be integers of shape ({count},), "
            f"but got {array.dtype} of shape {array.shape}."
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _check_images(info: DatasetInfo, images_NCHW: Images, count: int) -> None:
    """Raise where the images are of another type, shape or number."""
    is_batch = images_NCHW.ndim == 4 and images_NCHW.shape == (count, *info.image_shape)
    if images_NCHW.dtype != np.uint8 or not is_batch:
        raise DataError(
            f"Images of {info.name!r} must be uint8 of shape (N, C, H, W) with (C, H, W) = "
            f"{info.image_shape}, "
            f"but got {images_NCHW.dtype} of shape {images_NCHW.shape}."
        )


def _check_labels(info: DatasetInfo, labels_N: Int64Array) -> None:
    """Raise where a label names no class."""
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high >= len(info.classes):
        raise DataError(
            f"Labels of {info.name!r} must be in [0, {len(info.classes) - 1}], "
            f"but got {low if low < 0 else high}."
        )


def _one_line(schema: pa.Schema) -> str:
    """Return a schema as ``id: int64, image: ...``."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema)

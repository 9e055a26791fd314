"""Records: the facts behind an operating point, one row per classified image.

Dimensions: N images, L sites. Rows are ordered by image id, so that records of the same images
pair up row by row. Stored as Parquet; the split and the schema's version are in its metadata.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from runtime_pruning.errors import DataError
from runtime_pruning.files import replacing

HeldOut = Literal["validation", "test"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SCHEMA_VERSION = 1
_VERSION_KEY = b"runtime_pruning.record_version"
_SPLIT_KEY = b"runtime_pruning.split"


def record_schema(split: HeldOut, num_sites: int) -> pa.Schema:
    """Return the Arrow schema of a record of ``split`` over ``num_sites`` sites.

    Columns: ``image_id``, ``label``, ``prediction`` (int64), ``loss`` (float32, cross-entropy in
    nats), ``channels`` (int16 per site, channels that ran), ``executed_macs`` (int64, counted
    multiply-accumulates, network and policy together).
    """
    columns = [
        ("image_id", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("loss", pa.float32()),
        ("channels", pa.list_(pa.int16(), num_sites)),
        ("executed_macs", pa.int64()),
    ]
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns]
    metadata = {_VERSION_KEY: str(SCHEMA_VERSION).encode(), _SPLIT_KEY: split.encode()}
    return pa.schema(fields, metadata=metadata)


@dataclass(frozen=True)
class Record:
    """What a policy did to each image of a held-out split.

    Attributes:
        table: N rows under :func:`record_schema`, ascending ``image_id``.

    Raises:
        DataError: the table is not of that form, is empty, or holds an image twice.
    """

    table: pa.Table

    def __post_init__(self) -> None:
        _check_schema(self.table.schema)
        ids_N = self.image_ids_N
        if not len(ids_N):
            raise DataError("A record must hold at least one image, but got 0 rows.")
        if (np.diff(ids_N) <= 0).any():
            raise DataError("Image ids of a record must ascend, each once, but they do not.")

    @classmethod
    def from_arrays(
        cls,
        *,
        split: HeldOut,
        image_ids_N: npt.ArrayLike,
        labels_N: npt.ArrayLike,
        predictions_N: npt.ArrayLike,
        losses_N: npt.ArrayLike,
        channels_NL: npt.ArrayLike,
        executed_macs_N: npt.ArrayLike,
    ) -> Self:
        """Return a record of arrays (or tensors in host memory), rows put in order of image id.

        Raises:
            DataError: lengths differ, a whole-number column is not whole, an id occurs twice, or
                channels or MACs are out of range.
        """
        if split not in get_args(HeldOut):
            raise DataError(f"`split` must be one of {get_args(HeldOut)}, but got {split!r}.")
        channels = _whole("channels_NL", channels_NL, ndim=2)
        columns: dict[str, npt.NDArray[Any]] = {
            "image_id": _whole("image_ids_N", image_ids_N),
            "label": _whole("labels_N", labels_N),
            "prediction": _whole("predictions_N", predictions_N),
            "loss": np.asarray(losses_N, dtype=np.float32).reshape(-1),
            "channels": channels,
            "executed_macs": _whole("executed_macs_N", executed_macs_N),
        }
        _check_ranges(columns)
        order_N = np.argsort(columns["image_id"], kind="stable")
        schema = record_schema(split, channels.shape[1])
        arrays = [_arrow(columns[field.name][order_N], field.type) for field in schema]
        return cls(pa.Table.from_arrays(arrays, schema=schema))

    @property
    def split(self) -> HeldOut:
        """The held-out split that the images belong to."""
        return cast(HeldOut, self.table.schema.metadata[_SPLIT_KEY].decode())

    @property
    def num_sites(self) -> int:
        """L, the sites where channels could be left out."""
        return int(self.table.schema.field("channels").type.list_size)

    def __len__(self) -> int:
        """Return N, the number of images."""
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same facts of the same split (a NaN loss equals itself)."""
        if not isinstance(other, Record) or self.split != other.split:
            return False
        return len(self) == len(other) and all(
            np.array_equal(self._column(name), other._column(name), equal_nan=name == "loss")
            for name in ("image_id", "label", "prediction", "loss", "executed_macs", "channels")
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def image_ids_N(self) -> Ints:
        """Ids within the dataset, ascending."""
        return self._column("image_id")

    @property
    def labels_N(self) -> Ints:
        """True classes."""
        return self._column("label")

    @property
    def predictions_N(self) -> Ints:
        """Classes that the network chose."""
        return self._column("prediction")

    @property
    def losses_N(self) -> Floats:
        """Cross-entropy in nats."""
        return self._column("loss")

    @property
    def channels_NL(self) -> npt.NDArray[np.int16]:
        """Output channels that ran, per site."""
        return self._column("channels")

    @property
    def executed_macs_N(self) -> Ints:
        """Multiply-accumulates counted while running, network and policy together."""
        return self._column("executed_macs")

    @property
    def correct_N(self) -> Bools:
        """Where the prediction is the label."""
        result: Bools = self.labels_N == self.predictions_N
        return result

    def _column(self, name: str) -> npt.NDArray[Any]:
        """Return one column as numpy, ``channels`` as a matrix."""
        column = self.table.column(name).combine_chunks()
        if name != "channels":
            return cast(npt.NDArray[Any], column.to_numpy(zero_copy_only=False))
        flat: npt.NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(self.table), -1)


def write_record(record: Record, path: Path) -> None:
    """Write a record as Parquet; a reader sees the whole file or none."""
    with replacing(path) as unfinished:
        pq.write_table(record.table, unfinished, compression="zstd")


def read_record(path: Path) -> Record:
    """Return the record in a Parquet file.

    Raises:
        DataError: no such file, not Parquet, or not a record of this schema version.
    """
    try:
        return Record(pq.read_table(path, partitioning=None))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"No readable record at {path}: {error}") from error


def _check_schema(schema: pa.Schema) -> None:
    """Raise unless the schema is that of a record of this version."""
    metadata = schema.metadata or {}
    version = metadata.get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(f"Record schema version must be {SCHEMA_VERSION}, but got {version}.")
    split = metadata.get(_SPLIT_KEY, b"none").decode()
    if split not in get_args(HeldOut):
        raise DataError(f"A record's split must be in {get_args(HeldOut)}, but got {split!r}.")
    channels = schema.field("channels").type if "channels" in schema.names else pa.null()
    sites = channels.list_size if pa.types.is_fixed_size_list(channels) else 0
    expected = record_schema(cast(HeldOut, split), sites)
    if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in expected]:
        raise DataError(f"A record must have the columns {expected.names}, but got:\n{schema}")


def _check_ranges(columns: dict[str, npt.NDArray[Any]]) -> None:
    """Raise unless columns are equally long and counts are in range."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(f"All columns of a record must be equally long, but got {lengths}.")
    channels, macs = columns["channels"], columns["executed_macs"]
    if channels.shape[1] < 1:
        raise DataError("A record must cover at least one site, but got 0.")
    if channels.size and not (channels.min() >= 0 and channels.max() <= np.iinfo(np.int16).max):
        raise DataError(
            f"Channels must be in [0, 32767], but got [{channels.min()}, {channels.max()}]."
        )
    if macs.size and macs.min() < 0:
        raise DataError(f"Executed MACs must be >= 0, but got {macs.min()}.")


def _whole(name: str, values: npt.ArrayLike, ndim: int = 1) -> Ints:
    """Return whole numbers as int64, refusing fractions rather than cutting them off."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DataError(f"`{name}` must hold whole numbers, but got dtype {array.dtype}.")
    if array.ndim != ndim:
        raise DataError(f"`{name}` must have {ndim} dimension(s), but got shape {array.shape}.")
    return array.astype(np.int64)


def _arrow(column: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return a numpy column as an Arrow array of the given type."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(column, type=kind)
    values = pa.array(column.reshape(-1).astype(np.int16))
    return pa.FixedSizeListArray.from_arrays(values, type=kind)

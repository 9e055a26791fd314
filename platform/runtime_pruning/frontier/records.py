"""Records: the facts behind an operating point, one row per classified image.

Dimensions: N images, L sites, K classes, A classes whose log-probabilities are kept: all of them up
to 100, the 20 likeliest above. Rows are ordered by image id, so that records of the same images
pair up row by row. Stored as Parquet; the split and the schema's version are in its metadata, and,
where the answers are kept, the number of classes and a hash of the dataset's content.

Where several images were made from one source, a column names it: such images are no independent
evidence, and whoever redraws images redraws sources.
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
Judged = Literal["policy", "validation", "test"]  # a record may be of any of these
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Version 1 holds no answers.
SCHEMA_VERSION, ANSWERLESS_VERSION = 2, 1
_VERSION_KEY = b"runtime_pruning.record_version"
_SPLIT_KEY = b"runtime_pruning.split"
_CLASSES_KEY = b"runtime_pruning.num_classes"
_CONTENT_KEY = b"runtime_pruning.content"

MOST_COMPLETE, LIKELIEST = 100, 20  # classes
_TOLERANCE = 1e-3  # nats, of float32 sums


@dataclass(frozen=True, kw_only=True)
class AnswerKind:
    """What the answers in a record are answers to.

    Attributes:
        num_classes: K.
        content: hash of the dataset's content, see `ImageDataset.content_hash`.
    """

    num_classes: int
    content: str

    def __post_init__(self) -> None:
        if self.num_classes < 2 or not self.content:
            raise DataError(
                "Answers need `num_classes >= 2` and the hash of their dataset's content, "
                f"but got {self}."
            )

    @property
    def kept(self) -> int:
        """A, how many log-probabilities are kept per image."""
        return kept_classes(self.num_classes)


def kept_classes(num_classes: int) -> int:
    """Return how many log-probabilities a record keeps per image."""
    return num_classes if num_classes <= MOST_COMPLETE else LIKELIEST


def record_schema(
    split: Judged, num_sites: int, answers: AnswerKind | None = None, *, sources: bool = False
) -> pa.Schema:
    """Return the Arrow schema of a record of ``split`` over ``num_sites`` sites.

    Columns: ``image_id``, ``label``, ``prediction`` (int64), ``loss`` (float32, cross-entropy in
    nats), ``channels`` (int16 per site, channels that ran), ``executed_macs`` (int64, counted
    multiply-accumulates, network and policy together). With answers also ``log_probabilities``
    (float32 in nats) and ``answer_classes`` (int32): the classes that they are of. With sources
    also ``source`` (int64).
    """
    columns = [
        ("image_id", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("loss", pa.float32()),
        ("channels", pa.list_(pa.int16(), num_sites)),
        ("executed_macs", pa.int64()),
    ]
    version, metadata = ANSWERLESS_VERSION, {_SPLIT_KEY: split.encode()}
    if answers is not None:
        version = SCHEMA_VERSION
        columns += [
            ("log_probabilities", pa.list_(pa.float32(), answers.kept)),
            ("answer_classes", pa.list_(pa.int32(), answers.kept)),
        ]
        metadata[_CLASSES_KEY] = str(answers.num_classes).encode()
        metadata[_CONTENT_KEY] = answers.content.encode()
    if sources:
        columns.append(("source", pa.int64()))
    metadata[_VERSION_KEY] = str(version).encode()
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns]
    return pa.schema(fields, metadata=metadata)


@dataclass(frozen=True)
class Record:
    """What a policy did to each image of a split that the backbone has not learnt on.

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
        if self.answers is not None:
            _check_answers(self)

    @classmethod
    def from_arrays(
        cls,
        *,
        split: Judged,
        image_ids_N: npt.ArrayLike,
        labels_N: npt.ArrayLike,
        predictions_N: npt.ArrayLike,
        losses_N: npt.ArrayLike,
        channels_NL: npt.ArrayLike,
        executed_macs_N: npt.ArrayLike,
        answers: AnswerKind | None = None,
        log_probabilities_NA: npt.ArrayLike | None = None,
        answer_classes_NA: npt.ArrayLike | None = None,
        sources_N: npt.ArrayLike | None = None,
    ) -> Self:
        """Return a record of arrays (or tensors in host memory), rows put in order of image id.

        Raises:
            DataError: lengths differ, a whole-number column is not whole, an id occurs twice,
                channels or MACs are out of range, or answers are not what predicted.
        """
        if split not in get_args(Judged):
            raise DataError(f"`split` must be one of {get_args(Judged)}, but got {split!r}.")
        channels = _whole("channels_NL", channels_NL, ndim=2)
        columns: dict[str, npt.NDArray[Any]] = {
            "image_id": _whole("image_ids_N", image_ids_N),
            "label": _whole("labels_N", labels_N),
            "prediction": _whole("predictions_N", predictions_N),
            "loss": np.asarray(losses_N, dtype=np.float32).reshape(-1),
            "channels": channels,
            "executed_macs": _whole("executed_macs_N", executed_macs_N),
        }
        if answers is not None:
            columns["log_probabilities"] = np.asarray(log_probabilities_NA, dtype=np.float32)
            columns["answer_classes"] = _whole("answer_classes_NA", answer_classes_NA, ndim=2)
        if sources_N is not None:
            columns["source"] = _whole("sources_N", sources_N)
        _check_ranges(columns)
        order_N = np.argsort(columns["image_id"], kind="stable")
        schema = record_schema(split, channels.shape[1], answers, sources="source" in columns)
        arrays = [_arrow(columns[field.name][order_N], field.type) for field in schema]
        return cls(pa.Table.from_arrays(arrays, schema=schema))

    @property
    def split(self) -> Judged:
        """The split that the images belong to."""
        return cast(Judged, self.table.schema.metadata[_SPLIT_KEY].decode())

    @property
    def num_sites(self) -> int:
        """L, the sites where channels could be left out."""
        return int(self.table.schema.field("channels").type.list_size)

    @property
    def held_out(self) -> HeldOut:
        """The split, where figures may be read off it.

        Raises:
            DataError: choosers learn on it.
        """
        if self.split == "policy":
            raise DataError("Figures are read off a held-out split, but the record is of policy.")
        return self.split

    @property
    def answers(self) -> AnswerKind | None:
        """What the answers are answers to; None where they were not kept."""
        return _answer_kind(self.table.schema)

    def __len__(self) -> int:
        """Return N, the number of images."""
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same facts of the same split (a NaN loss equals itself)."""
        if not isinstance(other, Record) or self.split != other.split:
            return False
        if self.table.schema.names != other.table.schema.names or self.answers != other.answers:
            return False
        floats = ("loss", "log_probabilities")
        return len(self) == len(other) and all(
            np.array_equal(self._column(name), other._column(name), equal_nan=name in floats)
            for name in self.table.schema.names
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def image_ids_N(self) -> Ints:
        """Ids within the dataset, ascending."""
        return self._column("image_id")

    @property
    def sources_N(self) -> Ints:
        """What each image was made from: itself, where nothing else is said."""
        return self._column("source" if "source" in self.table.schema.names else "image_id")

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
    def log_probabilities_NA(self) -> Floats:
        """Natural logarithms of the probabilities of the classes in `answer_classes_NA`.

        Raises:
            DataError: the answers were not kept.
        """
        return self._column("log_probabilities")

    @property
    def answer_classes_NA(self) -> npt.NDArray[np.int32]:
        """The classes that are kept: all in their order up to 100, else the likeliest first.

        Raises:
            DataError: the answers were not kept.
        """
        return self._column("answer_classes")

    @property
    def correct_N(self) -> Bools:
        """Where the prediction is the label."""
        result: Bools = self.labels_N == self.predictions_N
        return result

    def _column(self, name: str) -> npt.NDArray[Any]:
        """Return one column as numpy, lists as a matrix."""
        if name not in self.table.schema.names:
            raise DataError(
                f"The record holds no {name}: it was written without the answers. "
                "Measure the operating point again to use it as a member."
            )
        column = self.table.column(name).combine_chunks()
        if not pa.types.is_fixed_size_list(column.type):
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
    known = (str(ANSWERLESS_VERSION), str(SCHEMA_VERSION))
    if version not in known:
        raise DataError(f"Record schema version must be in {known}, but got {version}.")
    split = metadata.get(_SPLIT_KEY, b"none").decode()
    if split not in get_args(Judged):
        raise DataError(f"A record's split must be in {get_args(Judged)}, but got {split!r}.")
    channels = schema.field("channels").type if "channels" in schema.names else pa.null()
    sites = channels.list_size if pa.types.is_fixed_size_list(channels) else 0
    answers = _answer_kind(schema)
    if (version == str(SCHEMA_VERSION)) != (answers is not None):
        raise DataError(f"A record of version {version} says of its answers: {answers}.")
    sources = "source" in schema.names
    expected = record_schema(cast(Judged, split), sites, answers, sources=sources)
    if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in expected]:
        raise DataError(f"A record must have the columns {expected.names}, but got:\n{schema}")


def _answer_kind(schema: pa.Schema) -> AnswerKind | None:
    """Return what a schema's metadata says of the answers."""
    metadata = schema.metadata or {}
    if _CLASSES_KEY not in metadata:
        return None
    content = metadata.get(_CONTENT_KEY, b"").decode()
    return AnswerKind(num_classes=int(metadata[_CLASSES_KEY]), content=content)


def _check_answers(record: Record) -> None:
    """Raise unless answers are probabilities of classes, the prediction the likeliest."""
    assert record.answers is not None
    count, log_NA, class_NA = (
        record.answers.num_classes,
        record.log_probabilities_NA,
        record.answer_classes_NA,
    )
    if not ((class_NA >= 0) & (class_NA < count)).all():
        raise DataError(f"Answers must be of classes in [0, {count}), but are not.")
    if (np.diff(np.sort(class_NA, axis=1), axis=1) == 0).any():
        raise DataError("An answer must name each class once, but one names a class twice.")
    finite_N = ~np.isnan(log_NA).any(axis=1)  # a network that has diverged
    sum_N = np.exp(log_NA[finite_N].astype(np.float64)).sum(axis=1)
    low = 1 - _TOLERANCE if record.answers.kept == count else 0.0
    if not ((sum_N >= low) & (sum_N <= 1 + _TOLERANCE)).all():
        raise DataError("The probabilities of an answer must sum to 1, but do not.")
    predicted_NA = class_NA == record.predictions_N[:, None]
    chosen_N = np.where(predicted_NA, log_NA, -np.inf).max(axis=1)[finite_N]
    if (chosen_N < log_NA[finite_N].max(axis=1) - _TOLERANCE).any():
        raise DataError("The prediction must be the likeliest class of the answer, but is not.")


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


def _whole(name: str, values: npt.ArrayLike | None, ndim: int = 1) -> Ints:
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
    values = pa.array(column.reshape(-1), type=kind.value_type, safe=True)
    return pa.FixedSizeListArray.from_arrays(values, type=kind)

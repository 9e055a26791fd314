"""Images in Parquet files, as hubs of datasets hand them out.

Files ``train*.parquet`` and, where there are any, ``val*.parquet`` and ``test*.parquet`` (or by
another of the names in `parts`), in a folder or in ``data`` below it; or, as Spark writes them,
folders ``train.parquet`` or ``train`` of such files, whatever those are called. Columns ``image``
(encoded bytes, alone or as the field ``bytes`` of a struct) and ``label`` (integers from 0).

Parquet gives out whole row groups, and training asks for single images in any order. So each file
is unpacked once into the cache folder, a row group at a time: the same encoded bytes, uncompressed,
which are then mapped into memory. The cache needs as much space as the files.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from runtime_pruning.datasets.cache import cache_folder
from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.listing import (
    MOST_CLASSES,
    ImageListing,
    check_classes,
    printable,
)
from runtime_pruning.datasets.parts import PARTS, file_part, one_name, part_of
from runtime_pruning.errors import DataError
from runtime_pruning.files import replacing

SUFFIX = ".parquet"

_PACKED = pa.schema([("image", pa.large_binary())])
_NONE = pa.array([], pa.large_binary())


class ParquetImages:
    """The images of some Parquet files, one file after the other.

    Args:
        files: absolute paths.
        group_sizes: rows of each row group, by file.
        cache: folder of unpacked files; a machine that lacks one makes it when it is first read.
    """

    def __init__(
        self, files: Sequence[Path], group_sizes: Sequence[Int64Array], cache: Path
    ) -> None:
        self.files = tuple(files)
        self.group_sizes = tuple(group_sizes)
        self.cache = cache
        ends = [np.cumsum(sizes) for sizes in group_sizes]
        self._file_ends = np.cumsum([end[-1] for end in ends])
        self._group_ends = ends
        self._lock = threading.Lock()
        self._readers: dict[int, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.files, self.group_sizes, self.cache)

    def __len__(self) -> int:
        return int(self._file_ends[-1])

    def open(self, row: int) -> BytesIO:
        """Return the encoded bytes of an image."""
        file, place = self._place(row)
        ends = self._group_ends[file]
        group = int(np.searchsorted(ends, place, side="right"))
        first = int(ends[group] - self.group_sizes[file][group])
        with self._lock:
            if file not in self._readers:
                packed = unpack(self.files[file], self.cache)
                self._readers[file] = pa.ipc.open_file(pa.memory_map(str(packed)))
            batch = self._readers[file].get_batch(group)
        return BytesIO(batch.column(0)[place - first].as_buffer())

    def name(self, row: int) -> str:
        """Return the file and the row in it."""
        file, place = self._place(row)
        return f"Row {place} of {str(self.files[file])!r}"

    def _place(self, row: int) -> tuple[int, int]:
        """Return the file that a row is in, and which row of it."""
        file = int(np.searchsorted(self._file_ends, row, side="right"))
        return file, row - int(self._file_ends[file] - self._group_ends[file][-1])


def parquet_files(data_dir: Path) -> dict[str, list[Path]]:
    """Return the files of each part; empty where there are none for training.

    Raises:
        DataError: a part goes by two names, or it is not clear which part a file is of.
    """
    for folder in (data_dir, data_dir / "data"):
        parts: dict[str, list[Path]] = {part: [] for part in PARTS}
        spelt: dict[str, set[str]] = {part: set() for part in PARTS}
        for entry in sorted(folder.glob("*")):
            if (files := _files_of(entry)) and (part := file_part(entry.name)):
                parts[part] += files
                spelt[part].add(re.split(r"[\W\d_]", entry.name)[0])
        if parts["train"]:
            for part, words in spelt.items():
                if words:
                    one_name(part, sorted(words), repr(str(folder)))
            return parts
    return {}


def _files_of(entry: Path) -> list[Path]:
    """Return the Parquet files that a file is, or a folder of Spark's holds."""
    if entry.name.startswith((".", "_")):
        return []
    if not entry.is_dir():
        return [entry] if entry.suffix.lower() == SUFFIX else []
    if entry.suffix.lower() != SUFFIX and part_of(entry.name) is None:
        return []
    inner = sorted(path for path in entry.iterdir() if not path.name.startswith((".", "_")))
    files = [path for path in inner if path.suffix.lower() == SUFFIX and path.is_file()]
    partitions = [path.name for path in inner if "=" in path.name and path.is_dir()]
    if entry.suffix.lower() == SUFFIX and (partitions or not files):
        raise DataError(
            f"{str(entry)!r} must hold Parquet files side by side, but holds "
            f"{partitions[:3] or 'none'}: write it without partitions."
        )
    return files


def list_parquet(parts: dict[str, list[Path]], cache: Path | None = None) -> ImageListing:
    """Read the labels of Parquet files and unpack their images.

    Args:
        parts: files of each part, as `parquet_files` finds them.
        cache: folder of unpacked files; by default ``unpacked`` in the user's cache folder.

    Raises:
        DataError: no Parquet, one file twice, a column is missing or of another type, a cell is
            empty, one class only, parts of which the classes differ, or no space to unpack.
    """
    _refuse_one_file_twice([path for part in parts.values() for path in part])
    folder = (cache or cache_folder() / "unpacked").resolve()  # workers start elsewhere
    files = [(number, path.resolve()) for number, part in enumerate(parts) for path in parts[part]]
    labels, sizes = zip(*(_labels(path) for _, path in files), strict=True)
    part_N = np.repeat([number for number, _ in files], [len(each) for each in labels])
    labels_N = np.concatenate(labels)
    classes = _class_names(files[0][1]) or _numbered(labels_N[part_N == 0])
    for number, part in enumerate(parts):
        if number in part_N:
            names = _named(labels_N[part_N == number], classes, part)
            check_classes(f"The {part} part", names, classes)
    for _, path in tqdm(files, "Unpacking", unit="file", disable=None):
        unpack(path, folder)
    return ImageListing(
        encoded=ParquetImages([path for _, path in files], sizes, folder),
        labels_N=labels_N,
        part_N=part_N,
        classes=classes,
        stamps_N=pa.array(_stamps([path for _, path in files], labels), pa.binary()),
        place=str(files[0][1]),
    )


def _refuse_one_file_twice(files: Sequence[Path]) -> None:
    """Refuse two names of one file: its images would be in two splits."""
    names: dict[tuple[int, int], Path] = {}
    for path in files:
        with reading(path):
            state = path.stat()
        other = names.setdefault((state.st_dev, state.st_ino), path)
        if other is not path:
            raise DataError(f"{str(other)!r} and {str(path)!r} are one file: name it once.")


def _stamps(files: Sequence[Path], labels: Sequence[Int64Array]) -> list[bytes]:
    """Return, for each row of each file, what changes when the file does."""
    return [
        b"%b %d" % (stamp, row)
        for stamp, rows in zip(map(_stamp, files), map(len, labels), strict=True)
        for row in range(rows)
    ]


def _stamp(path: Path) -> bytes:
    """Return a file's name, size and date of change."""
    state = path.stat()
    return b"%b %d %d" % (os.fsencode(path), state.st_size, state.st_mtime_ns)


def unpack(path: Path, folder: Path) -> Path:
    """Return the unpacked form of a Parquet file, made unless it is there.

    Raises:
        DataError: an image is missing, or there is no space.
    """
    packed = folder / f"{path.stem}-{hashlib.sha256(_stamp(path)).hexdigest()[:16]}.arrow"
    if packed.exists():
        return packed
    try:
        with (
            replacing(packed) as unfinished,
            pa.OSFile(str(unfinished), "wb") as sink,
            pa.ipc.new_file(sink, _PACKED) as writer,
            pq.ParquetFile(path) as source,
        ):
            for group in range(source.num_row_groups):
                writer.write_batch(_encoded(path, source.read_row_group(group, ["image"])))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{str(path)!r} could not be unpacked into {str(folder)!r}: {error}"
        ) from error
    return packed


def _encoded(path: Path, table: pa.Table) -> pa.RecordBatch:
    """Return the encoded bytes of one row group."""
    column = table["image"]
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if column.null_count:
        raise DataError(f"{str(path)!r} must have no empty image, but got {column.null_count}.")
    chunks = column.cast(_NONE.type).chunks or [_NONE]
    return pa.RecordBatch.from_arrays([pa.concat_arrays(chunks)], schema=_PACKED)


def _labels(path: Path) -> tuple[Int64Array, Int64Array]:
    """Return a file's labels and the sizes of its row groups."""
    schema = read_schema(path)
    check_column(path, schema, "image", _is_encoded, "binary, or a struct with binary `bytes`")
    check_column(path, schema, "label", pa.types.is_integer, "an integer")
    with reading(path), pq.ParquetFile(path) as file:
        labels = file.read(["label"])["label"]
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    if labels.null_count:
        raise DataError(f"{str(path)!r} must have no empty label, but got {labels.null_count}.")
    if not len(labels):
        raise DataError(f"{str(path)!r} must hold at least one row.")
    _check_numbers(labels, f"Labels of {str(path)!r}")
    return labels.to_numpy().astype(np.int64), np.array(sizes, np.int64)


def _check_numbers(labels: pa.ChunkedArray, what: str) -> None:
    """Refuse labels that cannot be those of classes, before anything is made for each class."""
    high = pc.max(labels).as_py()
    if high >= MOST_CLASSES:
        raise DataError(
            f"{what} must count the classes from 0 and stay below {MOST_CLASSES:,}, but got {high}."
        )


def _numbered(labels_N: Int64Array) -> tuple[str, ...]:
    """Return the numbers of classes that have no names."""
    if (low := int(labels_N.min())) > 0:
        raise DataError(f"Labels must count from 0, but the lowest is {low}.")
    return tuple(str(label) for label in range(int(labels_N.max(initial=0)) + 1))


def _is_encoded(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold encoded images."""
    if pa.types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        return "bytes" in names and _is_encoded(kind.field("bytes").type)
    result: bool = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return result


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the class names that a hub has written into a file's metadata."""
    try:
        about = json.loads((pq.read_schema(path).metadata or {})[b"huggingface"])
        names = about["info"]["features"]["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(map(printable, names)) if is_list else None


def _named(labels_N: Int64Array, classes: tuple[str, ...], part: str) -> tuple[str, ...]:
    """Return the names of the classes that occur, or say which label names none."""
    low, high = int(labels_N.min()), int(labels_N.max())
    if low < 0 or high >= len(classes):
        from_one = low == 1 and high == len(classes)
        raise DataError(
            f"Labels of the {part} part must be in [0, {len(classes) - 1}], but got "
            f"{low if low < 0 else high}; "
            + (
                "they must count from 0."
                if from_one
                else "a part without labels must lie elsewhere."
            )
        )
    return tuple(classes[label] for label in np.unique(labels_N))


def read_schema(path: Path) -> pa.Schema:
    """Return the schema of a Parquet file.

    Raises:
        DataError: it is none.
    """
    with reading(path):
        return pq.read_schema(path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file whose reading fails.

    Raises:
        DataError: it is missing, no Parquet file, or damaged.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{str(path)!r} must be a whole Parquet file: {reason}") from error


def check_column(path: Path, schema: pa.Schema, name: str, is_right: Any, wanted: str) -> None:
    """Raise where a column is missing or of another type."""
    if name not in schema.names:
        raise DataError(f"{str(path)!r} must have a column {name!r}, but has {schema.names}.")
    found = schema.field(name).type
    if not is_right(found):
        raise DataError(f"Column {name!r} of {str(path)!r} must be {wanted}, but is {found}.")

"""Images in a folder per class: listed once, opened one by one when they are read.

    train/<class>/...      and, where there are any, val/<class>/...
    test/<class>/...

(by any of the names in `parts`), or the class folders alone. Images may lie in subfolders of a
class, and folders and files may be symbolic links: a folder that was entered before is not entered
again. What begins with a dot, and what does not end as an image does, is passed over.

Dimensions: N images.
"""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from runtime_pruning.datasets.decoding import suffixes
from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.listing import ImageListing, check_classes, printable
from runtime_pruning.datasets.parallel import map_rows
from runtime_pruning.datasets.parts import PARTS, part_folders, part_of
from runtime_pruning.errors import DataError

STAT_THREADS = 16  # they wait for a disk or a server, not for a core

Identity = tuple[int, int]  # device and inode


class FileImages:
    """Images that are files below one folder.

    Args:
        root: absolute; every machine that reads must see it.
        names_N: paths below the root, as an Arrow array of bytes, which pickles without a copy.
    """

    def __init__(self, root: str, names_N: pa.Array) -> None:
        self.root = root
        self.names_N = names_N

    def __len__(self) -> int:
        return len(self.names_N)

    def open(self, row: int) -> Path:
        """Return the file."""
        return Path(self.root, os.fsdecode(self.names_N[row].as_py()))

    def name(self, row: int) -> str:
        """Return the file's path in quotes."""
        return repr(str(self.open(row)))


class _Files(NamedTuple):
    """Files of a dataset, in order."""

    names: list[bytes]  # below the root
    labels_N: Int64Array
    part_N: Int64Array


def list_files(data_dir: Path) -> ImageListing:
    """List all images of a folder; none is opened.

    Raises:
        DataError: no class folders, one class only, a class without images, parts of which the
            classes differ, folders of which it is not clear what part they are, a folder that
            cannot be read, or one file in two classes or parts.
    """
    root = data_dir.resolve()
    parts = _part_folders(root)
    folders = {part: _class_folders(folder) for part, folder in parts.items()}
    classes = tuple(printable(name) for name in folders["train"])
    for part, folder in parts.items():
        found = tuple(printable(name) for name in folders[part])
        check_classes(repr(str(folder)), found, classes)
    files = _walk(root, parts, folders)
    encoded = FileImages(str(root), pa.array(files.names, pa.binary()))
    state_N4 = _states(encoded)
    kept = _once_each(encoded, files, state_N4[:, :2])
    names_N = encoded.names_N.take(pa.array(kept))
    stamps = [
        b"%b %d %d" % (name, size, changed)
        for name, (size, changed) in zip(
            names_N.to_pylist(), state_N4[kept, 2:].tolist(), strict=True
        )
    ]
    return ImageListing(
        encoded=FileImages(str(root), names_N),
        labels_N=files.labels_N[kept],
        part_N=files.part_N[kept],
        classes=classes,
        stamps_N=pa.array(stamps, pa.binary()),
        place=str(root),
    )


def _part_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each part that there is, the training part first."""
    names = part_folders(_folders(root), repr(str(root)))
    if names and "train" not in names:
        raise DataError(f"{str(root)!r} must hold `train` beside {sorted(names)}.")
    return {part: root / name for part, name in names.items()} or {"train": root}


def _class_folders(folder: Path) -> list[str]:
    """Return the names of a part's class folders, sorted."""
    names = sorted(_folders(folder))
    if not names:
        files = sorted(path.name for path in folder.glob("*.parquet"))[:3]
        hint = f" Parquet files must begin with `train`, unlike {files}." if files else ""
        raise DataError(
            f"{str(folder)!r} must hold a folder of images per class: none found.{hint}"
        )
    _refuse_parts(folder, names)
    return names


def _refuse_parts(folder: Path, names: list[str]) -> None:
    """Refuse folders of parts where those of classes, or of a class's images, should be."""
    parts = {part: name for name in names if (part := part_of(name))}
    if len(parts) > 1:
        raise DataError(
            f"{str(folder)!r} must hold classes or images, but holds parts of a dataset, "
            f"{sorted(parts.values())}: the folder of a part holds those of the classes."
        )


def _folders(folder: Path) -> list[str]:
    """Return the names of a folder's folders."""
    entries = _entries(os.fsencode(folder))
    return [os.fsdecode(entry.name) for entry in entries if _is_folder(entry)]


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    """Return what a folder holds, without what is hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(b".")]
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise _unreadable(entry.path, error) from error


def _unreadable(path: bytes, error: OSError) -> DataError:
    return DataError(f"{os.fsdecode(path)!r} must be readable: {error.strerror}.")


def _walk(root: Path, parts: dict[str, Path], folders: dict[str, list[str]]) -> _Files:
    """Return the images of all classes of all parts."""
    names: list[bytes] = []
    labels: list[int] = []
    part_of_each: list[int] = []
    for part, folder in parts.items():
        above = [_identity(root), _identity(folder)]
        bar = tqdm(folders[part], f"Listing {part}", unit="class", disable=None)
        for label, name in enumerate(bar):
            _refuse_parts(folder / name, _folders(folder / name))
            found = _images(
                os.fsencode(root), os.fsencode((folder / name).relative_to(root)), above
            )
            if not found:
                raise DataError(f"{str(folder / name)!r} must hold images, but holds none.")
            names += found
            labels += [label] * len(found)
            part_of_each += [list(PARTS).index(part)] * len(found)
    return _Files(names, np.array(labels, np.int64), np.array(part_of_each, np.int64))


def _images(root: bytes, folder: bytes, above: Iterable[Identity]) -> list[bytes]:
    """Return the images below a class's folder, sorted, as paths below the root.

    Args:
        root: of the dataset.
        folder: of the class, below the root.
        above: folders that hold it: a link that leads back to one is not followed.
    """
    known, images = suffixes(), []
    entered = {*above, _identity(os.path.join(root, folder))}
    to_do = [folder]
    while to_do:
        parent = to_do.pop()
        for entry in _entries(os.path.join(root, parent)):
            if _is_folder(entry):
                identity = _identity(entry.path)
                if identity not in entered:
                    entered.add(identity)
                    to_do.append(os.path.join(parent, entry.name))
            elif os.fsdecode(os.path.splitext(entry.name)[1]).lower() in known:
                images.append(os.path.join(parent, entry.name))
    return sorted(images)


def _identity(path: Path | bytes) -> Identity:
    """Return what is the same for all names of one folder."""
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _states(encoded: FileImages) -> Int64Array:
    """Return device, inode, size and date of change (ns) of each file; -1 where there is none."""
    state_N4 = np.full((len(encoded), 4), -1, np.int64)
    root, names = os.fsencode(encoded.root), encoded.names_N.to_pylist()

    def work(rows: range) -> None:
        for row in rows:
            try:
                state = os.stat(os.path.join(root, names[row]))
            except OSError:
                continue  # whoever opens it says why
            if stat.S_ISREG(state.st_mode):
                inode = state.st_ino - ((state.st_ino >> 63) << 64)  # as a signed number
                state_N4[row] = state.st_dev, inode, state.st_size, state.st_mtime_ns

    for _ in map_rows(len(encoded), work, threads=STAT_THREADS, chunk=1_024):
        pass
    return state_N4


def _once_each(encoded: FileImages, files: _Files, identity_N2: Int64Array) -> Int64Array:
    """Return the rows of files that no earlier row of the same class and part is a name of.

    Raises:
        DataError: a file is in two classes or two parts.
    """
    _, first, which_N = np.unique(identity_N2, axis=0, return_index=True, return_inverse=True)
    first_N = first[which_N.ravel()]
    known_N = ~np.isin(identity_N2[:, 1], (0, -1))  # some file systems number no file
    rows = np.arange(len(encoded))
    again = rows[known_N & (first_N != rows)]
    for what, column_N in (("parts", files.part_N), ("classes", files.labels_N)):
        wrong = again[column_N[again] != column_N[first_N[again]]]
        if len(wrong):
            raise DataError(
                f"{encoded.name(int(first_N[wrong[0]]))} and {encoded.name(int(wrong[0]))} are one "
                f"file: it must not be in two {what}, which holds for {len(wrong):,} in all."
            )
    return np.setdiff1d(rows, again)

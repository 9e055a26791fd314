"""Images in a folder per class: listed once, opened one by one when they are read.

    train/<class>/...      and, where there are any, val/<class>/... (or valid, validation)
    test/<class>/...

or the class folders alone. Images may lie in subfolders of a class. What begins with a dot, and
what does not end as an image does, is passed over.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from runtime_pruning.datasets.decoding import suffixes
from runtime_pruning.datasets.listing import PARTS, ImageListing, check_classes
from runtime_pruning.errors import DataError


class FileImages:
    """Images that are files below one folder.

    Args:
        root: absolute; every machine that reads must see it.
        names: paths below the root, as an Arrow array, which pickles without a copy.
    """

    def __init__(self, root: str, names: pa.Array) -> None:
        self.root = root
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def open(self, row: int) -> Path:
        """Return the file."""
        return Path(self.root, self.names[row].as_py())

    def name(self, row: int) -> str:
        """Return the file's path in quotes."""
        return repr(str(self.open(row)))


def list_files(data_dir: Path) -> ImageListing:
    """List all images of a folder; none is opened.

    Raises:
        DataError: no class folders, one class only, a class without images, or parts of which
            the classes differ.
    """
    root = data_dir.resolve()
    parts = _part_folders(root)
    classes: tuple[str, ...] = ()
    names: list[str] = []
    labels: list[int] = []
    part_of: list[int] = []
    for part, folder in parts.items():
        found = tuple(sorted(_class_folders(folder)))
        if not found:
            raise DataError(f"{str(folder)!r} must hold a folder of images per class: none found.")
        classes = classes or found
        check_classes(repr(str(folder)), found, classes)
        for label, name in enumerate(tqdm(classes, f"Listing {part}", unit="class", disable=None)):
            images = sorted(_images(folder / name))
            if not images:
                raise DataError(f"{str(folder / name)!r} must hold images, but holds none.")
            names += [os.path.relpath(image, root) for image in images]
            labels += [label] * len(images)
            part_of += [list(PARTS).index(part)] * len(images)
    return ImageListing(
        encoded=FileImages(str(root), pa.array(names)),
        labels_N=np.array(labels, np.int64),
        part_N=np.array(part_of, np.int64),
        classes=classes,
        key=_key(root, names),
    )


def _key(root: Path, names: list[str]) -> str:
    """Return all names and a thousand files' sizes: asking a million files takes minutes."""
    sizes = []
    for name in names[:: 1 + len(names) // 1_000]:
        with contextlib.suppress(OSError):  # whoever opens it says why
            sizes.append(str(os.path.getsize(root / name)))
    return "\n".join([*names, *sizes])


def _part_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each part that there is, the training part first."""
    parts: dict[str, Path] = {}
    for part, names in PARTS.items():
        folders = [root / name for name in names if (root / name).is_dir()]
        if len(folders) > 1:
            raise DataError(f"Only one of {[str(folder) for folder in folders]} may be there.")
        if folders:
            parts[part] = folders[0]
    if parts and "train" not in parts:
        raise DataError(f"{str(root)!r} must hold `train` beside {sorted(parts)}.")
    return parts or {"train": root}


def _class_folders(folder: Path) -> Iterator[str]:
    """Yield the names of a part's classes."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                yield entry.name


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths of a class's images, its subfolders' included."""
    known = suffixes()
    for parent, _, files in os.walk(folder, followlinks=True):
        for file in files:
            if os.path.splitext(file)[1].lower() in known and not file.startswith("."):
                yield os.path.join(parent, file)

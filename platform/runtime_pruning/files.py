"""Files that appear whole or not at all, and locks between processes."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from torch import Tensor


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel drops it when the process dies.

    Args:
        path: of the file; created.
        wait: until whoever holds it drops it.

    Raises:
        BlockingIOError: somebody holds it, and nobody waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise BlockingIOError(f"{path} is locked.") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write that takes the place of ``path`` in one move, or never does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())  # or a crash could leave the name without the content
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path) -> None:
    """Write tensors by name, from whatever device and in whatever layout, as safetensors.

    Of tensors that share memory each is written whole.
    """
    from safetensors.torch import save_file  # brings torch, which locks and moves need not

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen = set[int]()
    for name, tensor in plain.items():
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    with replacing(path) as unfinished:
        save_file(plain, unfinished)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where a file system has no links between them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_tree(source: Path, target: Path) -> None:
    """Give a file, or each file of a folder, a second name below ``target``, or copy it.

    What has the name already is replaced, and never written into: it may have others.
    """
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in files:
        second = target / path.relative_to(source.parent)
        second.parent.mkdir(parents=True, exist_ok=True)
        second.unlink(missing_ok=True)
        link_or_copy(path, second)

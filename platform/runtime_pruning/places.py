"""Folders that lie anywhere: at a path, or at the address of an object store.

What is written through a `Place` is there whole or not at all. pyarrow opens the address, as it
does for Ray Tune, so that both read the same credentials and the same options:
``s3://bucket/results?endpoint_override=127.0.0.1:9000&scheme=http``.
"""

import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from runtime_pruning.errors import ConfigError, UserError
from runtime_pruning.files import replacing, write_text

Result = TypeVar("Result")

_SCHEMES = ("s3", "gs")


class PlaceError(UserError):
    """A place that cannot be read or written."""


@dataclass(frozen=True)
class Place:
    """A folder, on whatever file system.

    Attributes:
        filesystem: that holds it; travels to workers.
        path: of the folder there, without a scheme.
        address: as people are shown it, without options and secrets.
    """

    filesystem: fs.FileSystem
    path: str
    address: str

    @classmethod
    def at(cls, named: str | Path) -> "Place":
        """Return the place of a path, or of an address ``file://``, ``s3://`` or ``gs://``.

        Raises:
            ConfigError: another kind of address, or one that pyarrow does not understand.
        """
        # A path that was made of an address has lost one of its slashes.
        address = re.fullmatch(r"(\w[\w+.-]*):/(/?.*)", str(named))
        scheme, rest = address.groups() if address else ("", str(named))
        if scheme in ("", "file"):
            path = Path("/" + unquote(rest).lstrip("/")) if scheme else Path(rest).expanduser()
            return cls(fs.LocalFileSystem(), str(path.absolute()), str(path.absolute()))
        rest = rest.lstrip("/")
        if scheme not in _SCHEMES:
            raise ConfigError(
                "Results may go to a folder, or to an address file://, s3:// or gs://, but got "
                f"{str(named)!r}."
            )
        try:
            filesystem, path_there = fs.FileSystem.from_uri(f"{scheme}://{rest}")
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"The address {scheme}:// cannot be used: {_first(error)}") from error
        return cls(filesystem, path_there, f"{scheme}://{path_there}")

    def __truediv__(self, name: str) -> "Place":
        return Place(self.filesystem, f"{self.path}/{name}", f"{self.address}/{name}")

    @property
    def local(self) -> Path | None:
        """The folder's path, where it is one; None at an object store."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def names(self) -> list[str]:
        """Return the names of what is in the folder, sorted; none where there is no folder."""
        with self._told():
            selector = fs.FileSelector(self.path, allow_not_found=True)
            return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def holds(self, name: str) -> bool:
        """Whether there is a file of that name, which may have slashes."""
        with self._told():
            info = self.filesystem.get_file_info(f"{self.path}/{name}")
            return bool(info.type == fs.FileType.File)

    def read_text(self, name: str) -> str | None:
        """Return what a text file holds; None where there is none."""
        if not self.holds(name):
            return None
        with self._told(), self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return str(stream.read().decode("utf-8"))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        with self._told():
            if self.local is not None:
                write_text(self.local / name, text)
                return
            with self.filesystem.open_output_stream(f"{self.path}/{name}") as stream:
                stream.write(text.encode("utf-8"))

    def claim(self, name: str) -> bool:
        """Make a folder of that name; return whether it is new.

        Of processes that ask together one is told so. An object store cannot tell them apart.
        """
        with self._told():
            if self.local is None:
                return name not in self.names()
            try:
                (self.local / name).mkdir(parents=True)
            except FileExistsError:
                return False
            return True

    def delete(self, name: str) -> None:
        """Delete a file or folder, if it is there."""
        path = f"{self.path}/{name}"
        with self._told():
            kind = self.filesystem.get_file_info(path).type
            if kind == fs.FileType.File:
                self.filesystem.delete_file(path)
            elif kind == fs.FileType.Directory:
                self.filesystem.delete_dir(path)

    def download(self, target: Path, *, without: Sequence[str] = ()) -> None:
        """Copy the folder's files below ``target``; those that it has at their size stay.

        Args:
            target: a local folder, empty or an earlier copy.
            without: names of entries of the folder that are left out.
        """
        with self._told():
            selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
            for info in self.filesystem.get_file_info(selector):
                relative = PurePosixPath(info.path).relative_to(self.path)
                if info.type != fs.FileType.File or relative.parts[0] in without:
                    continue
                there = target / relative
                if not (there.is_file() and there.stat().st_size == info.size):
                    with replacing(there) as unfinished:
                        _copy(info.path, self.filesystem, unfinished, fs.LocalFileSystem())

    def upload(self, source: Path) -> None:
        """Copy a local file here, under its own name."""
        with self._told():
            target = f"{self.path}/{source.name}"
            _copy(source, fs.LocalFileSystem(), target, self.filesystem)

    @contextmanager
    def opened(
        self,
        *,
        only: Sequence[str] | None = None,
        every_s: float | None = None,
        sends: bool = True,
    ) -> Iterator[Path]:
        """Yield a local folder of the same content; what is written there comes here.

        A folder is yielded as it is. Of an object store's a copy is yielded, and what is new or
        changed there is uploaded when the block ends, however it ends: the oldest first, so that
        a file that marks others as complete comes after them.

        Args:
            only: folders in it that are copied first; None copies all.
            every_s: upload so often meanwhile as well; files must then appear whole.
            sends: whether anything is uploaded at all.
        """
        if self.local is not None:
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="place-") as name:
            folder = Path(name)
            for entry in [""] if only is None else only:
                (self / entry if entry else self).download(folder / entry)
            with _Sender(self, folder).sending(every_s) if sends else nullcontext():
                yield folder

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one sentence what a file system has to complain of."""
        try:
            yield
        except OSError as error:
            raise PlaceError(f"{self.address} cannot be used: {_first(error)}") from error


class _Sender:
    """Uploads what changes in a local folder.

    Args:
        place: where to.
        folder: its copy.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._known = self._state()

    @contextmanager
    def sending(self, every_s: float | None) -> Iterator[None]:
        """Upload what changed when the block ends, and every so many seconds in it."""
        ended = threading.Event()

        def send_often() -> None:
            while not ended.wait(every_s):
                with suppress(PlaceError):  # the last one tells, if it fails too
                    self.send()

        thread = threading.Thread(target=send_often, daemon=True) if every_s else None
        if thread:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread:
                thread.join()
            self.send()

    def send(self) -> None:
        """Upload what is new or changed, the oldest first."""
        now = self._state()
        changed = [path for path, state in now.items() if self._known.get(path) != state]
        for path in sorted(changed, key=lambda path: now[path]):
            place, parent = self._place, path.parent.relative_to(self._folder).as_posix()
            (place if parent == "." else place / parent).upload(path)
            self._known[path] = now[path]

    def _state(self) -> dict[Path, tuple[int, int]]:
        """Return when each finished file was written, and its size."""
        found = {}
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):  # renamed meanwhile
                if path.is_file() and not path.name.startswith("."):
                    status = path.stat()
                    found[path] = (status.st_mtime_ns, status.st_size)
        return found


@dataclass(frozen=True)
class Mirror:
    """A place, and the folder of this machine that holds copies of some of it.

    Where the place is a folder, both are one and nothing is copied.

    Attributes:
        place: the whole.
        folder: the copies, at the same paths.
    """

    place: Place
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> "Mirror":
        """Return a folder as its own mirror."""
        return cls(Place.at(folder), folder)

    def fetch(self, path: str, *, without: Sequence[str] = ()) -> Path:
        """Return the local copy of a folder of the place, brought up to date.

        Args:
            path: on the place's file system, or relative to the place.
            without: entries that are left out.
        """
        relative = PurePosixPath(path)
        if relative.is_relative_to(self.place.path):
            relative = relative.relative_to(self.place.path)
        if self.place.local is None:
            (self.place / str(relative)).download(self.folder / relative, without=without)
        return self.folder / relative

    def place_of(self, folder: Path) -> Place:
        """Return the place that a local copy is of."""
        return self.place / folder.relative_to(self.folder).as_posix()


def in_folders(
    work: Callable[..., Result], *places: Place | Sequence[Place] | None, **others: Any
) -> Result:
    """Return what a function makes of places, each given to it as a local folder.

    What the function writes into them comes to the places, however it ends.

    Args:
        work: takes a folder for each place, a list of folders for several, None for None.
        places: see there.
        others: what else it takes, by name.
    """
    with ExitStack() as opened:

        def folders_of(each: Place | Sequence[Place] | None) -> Path | list[Path] | None:
            if isinstance(each, Place):
                return opened.enter_context(each.opened())
            return (
                None if each is None else [opened.enter_context(place.opened()) for place in each]
            )

        return work(*[folders_of(each) for each in places], **others)


def _copy(
    source: str | Path,
    source_system: fs.FileSystem,
    target: str | Path,
    target_system: fs.FileSystem,
) -> None:
    fs.copy_files(
        str(source),
        str(target),
        source_filesystem=source_system,
        destination_filesystem=target_system,
    )


def _first(error: BaseException) -> str:
    """Return the first line of an error's text, without the secrets of an address."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/@\s]*@", "//", line)

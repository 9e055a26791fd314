"""Events wait on disk until the store holds them: nothing is lost to a crash or a dead server.

An event is one JSON file, written whole or not at all; files that it speaks of are linked (copied,
across file systems) beside it, so that the originals may go. Its name is its content's key: the
same event waits once only, and the first one written wins.
"""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from runtime_pruning.files import link_or_copy, write_text

Kind = Literal[
    "sweep",
    "trial",
    "curves",
    "point",
    "test",
    "exam",
    "dynamics",
    "timing",
    "trial_end",
    "sweep_end",
]
# Whatever arrives first, an event is written after those that it builds on: in the order above.
_ORDER: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Event:
    """Something that is to be written to the store.

    Attributes:
        kind: what it is.
        key: its identity among its kind, fit for a file name.
        payload: plain JSON.
        at_ms: when it happened, milliseconds since 1970.
    """

    kind: Kind
    key: str
    payload: dict[str, Any]
    at_ms: int

    @property
    def stem(self) -> str:
        """The event's file name, without the ending."""
        return f"{_ORDER.index(self.kind)}-{self.kind}-{self.key}"


class Spool:
    """A folder of events that are not in the store yet; threads may share it.

    Args:
        folder: its own; created when the first event arrives.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def put(
        self,
        kind: Kind,
        key: str,
        payload: dict[str, Any],
        files: Mapping[str, Path] | None = None,
    ) -> Event:
        """Keep an event, unless one of its kind and key waits already; return the one kept.

        Args:
            kind: what happened.
            key: its identity among its kind.
            payload: plain JSON.
            files: files or folders to keep, by the name that they get in :meth:`files`. They may
                go, or be replaced, once this returns; they may not be written to in place.
        """
        event = Event(kind, key, payload, time.time_ns() // 1_000_000)
        path = self._folder / f"{event.stem}.json"
        with self._lock:
            if path.exists():
                return _load(path)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._keep(event, files or {})
            write_text(path, json.dumps(asdict(event)))
        return event

    def waiting(self) -> list[Event]:
        """Return what waits: parents before children, then as it happened."""
        with self._lock:
            events = [_load(path) for path in self._folder.glob("*.json")]
        return sorted(events, key=lambda event: (_ORDER.index(event.kind), event.at_ms, event.key))

    def files(self, event: Event) -> Path:
        """Return the folder with an event's files; it exists if there are any."""
        return self._folder / event.stem

    def drop(self, event: Event) -> None:
        """Forget an event that the store holds."""
        with self._lock:
            (self._folder / f"{event.stem}.json").unlink(missing_ok=True)
            shutil.rmtree(self.files(event), ignore_errors=True)

    def reject(self, event: Event) -> Path:
        """Put an event that the store refuses for good aside; return where it lies."""
        folder = self._folder / "rejected"
        folder.mkdir(exist_ok=True)
        path = folder / f"{event.stem}.json"
        with self._lock:
            if self.files(event).exists():
                shutil.rmtree(folder / event.stem, ignore_errors=True)
                self.files(event).rename(folder / event.stem)
            (self._folder / path.name).replace(path)
        return path

    def _keep(self, event: Event, files: Mapping[str, Path]) -> None:
        """Put an event's files into its folder, replacing what a crash left half done."""
        target = self.files(event)
        shutil.rmtree(target, ignore_errors=True)
        for name, source in files.items():
            target.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target / name, copy_function=link_or_copy)
            else:
                link_or_copy(source, target / name)


def _load(path: Path) -> Event:
    """Return the event in a file."""
    return Event(**json.loads(path.read_text()))

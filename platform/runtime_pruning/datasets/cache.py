"""A folder in which downloads and decoded images are kept between runs."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from runtime_pruning.files import replacing

CACHE_ENV = "RUNTIME_PRUNING_CACHE"


def cache_folder() -> Path:
    """Return where downloads are kept, as the user chose or in the user's cache."""
    if chosen := os.environ.get(CACHE_ENV):
        return Path(chosen)
    user_cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(user_cache) if user_cache else Path.home() / ".cache") / "runtime-pruning"


def key_of(source: Path) -> str:
    """Return a hash of a file's content."""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def cached_table(path: Path, schema: pa.Schema, make: Callable[[], pa.Table]) -> pa.Table:
    """Return ``make()``, or what it made before, mapped into memory.

    A cache that cannot be read or written only costs time.

    Args:
        path: of the file in the cache, named by all that the table depends on.
        schema: of the table.
        make: makes the table.
    """
    with contextlib.suppress(OSError, pa.ArrowInvalid):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if table.schema.equals(schema):
            return table
    table = make()
    with (
        contextlib.suppress(OSError),
        replacing(path) as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return table

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


def cached_table(
    source: Path, folder: Path, schema: pa.Schema, make: Callable[[], pa.Table]
) -> pa.Table:
    """Return ``make()``, or what it made of the same bytes before, mapped into memory.

    A cache that cannot be read or written only costs time.

    Args:
        source: the file that the table is made of; its content is the key.
        folder: of the cache; created.
        schema: of the table.
        make: decodes the source.
    """
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path = folder / f"{source.stem}-{digest[:16]}.arrow"
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

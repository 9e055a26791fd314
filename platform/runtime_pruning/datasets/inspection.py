"""All pixels are looked at before anything is trained, and each image's bytes are hashed.

What was found is kept in the cache folder, by image, and holds as long as the image's name, size
and date do: as git knows which files have changed. So the next time takes seconds, one file that
was mended is one file that is looked at, and an interrupted inspection goes on where it was.

Dimensions: N images, X bytes of a hash.
"""

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from runtime_pruning.datasets.cache import cache_folder
from runtime_pruning.datasets.decoding import fault
from runtime_pruning.datasets.images import UInt8Array
from runtime_pruning.datasets.listing import ImageListing, printable
from runtime_pruning.datasets.parallel import map_rows, usable_cores
from runtime_pruning.datasets.stored import HASH_BYTES, content_of
from runtime_pruning.errors import DataError
from runtime_pruning.files import replacing, write_text

Damaged = Literal["refuse", "skip"]
"""What becomes of images that cannot be decoded."""

# Counts changes to what an inspection finds; Pillow's version counts those to what can be decoded.
VERSION = f"1 {PIL.__version__}"
NAMED = 3  # damaged images in a message; the rest are listed in a file
CHUNK = 64

_SCHEMA = pa.schema(
    [("stamp", pa.binary()), ("hash", pa.binary(HASH_BYTES)), ("fault", pa.string())]
).with_metadata({"version": VERSION})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspection:
    """What is known of each image of a listing.

    Attributes:
        listing: of the images.
        hash_NX: SHA-256 of each image's encoded bytes.
        faults: why an image cannot be used, by row.
        file: the list of those images.
    """

    listing: ImageListing
    hash_NX: UInt8Array
    faults: dict[int, str]
    file: Path

    def refuse(self) -> None:
        """Refuse the dataset if an image is damaged.

        Raises:
            DataError: the message names the first ones, and the file that lists them all.
        """
        if self.faults:
            raise DataError(
                f"{self._summary()} Mend or remove them, or leave them out by the dataset's "
                "setting `damaged: skip`."
            )

    def warn(self) -> None:
        """Say which images are left out, if any."""
        if self.faults:
            log.warning("Left out: %s", self._summary())

    def write(self) -> None:
        """List the damaged images in the file; a cache that cannot be written to does no harm."""
        with contextlib.suppress(OSError):
            if not self.faults:
                self.file.unlink(missing_ok=True)
                return
            lines = [f"{self._name(row)}: {why}\n" for row, why in self.faults.items()]
            write_text(self.file, "".join(lines))

    def _summary(self) -> str:
        first = [f"{self._name(row)} ({why})" for row, why in [*self.faults.items()][:NAMED]]
        more = ["..."] if len(self.faults) > NAMED else []
        return (
            f"{len(self.faults):,} of {len(self.hash_NX):,} images are damaged: "
            f"{', '.join(first + more)}. {str(self.file)!r} lists them all."
        )

    def _name(self, row: int) -> str:
        return printable(self.listing.encoded.name(row))


def inspect(listing: ImageListing, folder: Path | None = None) -> Inspection:
    """Return what is known of all images of a listing, after looking at those that are new.

    Args:
        listing: of the images.
        folder: of what was found before; by default ``inspected`` in the user's cache folder.
    """
    folder = folder or cache_folder() / "inspected"
    path = folder / f"{hashlib.sha256(os.fsencode(listing.place)).hexdigest()[:16]}.arrow"
    found = _Findings(listing)
    found.recall(path)
    new = len(found.new)
    try:
        found.look()
    finally:
        if new:
            found.store(path)
    faults = {row: why for row, why in enumerate(found.fault_N) if why is not None}
    inspection = Inspection(listing, found.hash_NX, faults, path.with_suffix(".txt"))
    inspection.write()
    return inspection


class _Findings:
    """Hash and fault of each image, as far as they are known."""

    def __init__(self, listing: ImageListing) -> None:
        self.listing = listing
        count = len(listing.encoded)
        self.hash_NX = np.zeros((count, HASH_BYTES), np.uint8)
        self.fault_N: list[str | None] = [None] * count
        self.is_known_N = np.zeros(count, bool)

    @property
    def new(self) -> list[int]:
        """Rows that nothing is known of."""
        return np.flatnonzero(~self.is_known_N).tolist()

    def recall(self, path: Path) -> None:
        """Take over what was found of images that are still the same."""
        try:
            with pa.memory_map(str(path)) as file:
                kept = pa.ipc.open_file(file).read_all()
                if not kept.schema.equals(_SCHEMA, check_metadata=True):
                    return
                place_N = pc.index_in(self.listing.stamps_N, kept["stamp"])
                rows = np.flatnonzero(place_N.is_valid().to_numpy(zero_copy_only=False))
                some = kept.take(place_N.drop_null())
        except (OSError, pa.ArrowInvalid):
            return
        hashes = b"".join(some["hash"].to_pylist())
        self.hash_NX[rows] = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)
        for row, why in zip(rows.tolist(), some["fault"].to_pylist(), strict=True):
            self.fault_N[row] = why
        self.is_known_N[rows] = True

    def look(self) -> None:
        """Read and decode all images that nothing is known of, on all cores."""
        new = self.new

        def work(places: range) -> None:
            for place in places:
                self._look_at(new[place])

        bar = tqdm(total=len(new), desc="Checking images", unit="image", disable=None)
        with bar:
            for places in map_rows(len(new), work, threads=usable_cores(), chunk=CHUNK):
                bar.update(len(places))

    def _look_at(self, row: int) -> None:
        try:
            content = content_of(self.listing.encoded.open(row))
        except OSError as error:
            self.fault_N[row] = error.strerror or str(error)
        else:
            self.hash_NX[row] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
            self.fault_N[row] = fault(content)
        self.is_known_N[row] = True

    def store(self, path: Path) -> None:
        """Keep what is known; a cache that cannot be written to only costs time."""
        rows = np.flatnonzero(self.is_known_N)
        hashes = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(HASH_BYTES), len(rows), [None, pa.py_buffer(self.hash_NX[rows])]
        )
        faults = pa.array([self.fault_N[row] for row in rows], pa.string())
        columns = [self.listing.stamps_N.take(pa.array(rows)), hashes, faults]
        with (
            contextlib.suppress(OSError),
            replacing(path) as unfinished,
            pa.OSFile(str(unfinished), "wb") as sink,
            pa.ipc.new_file(sink, _SCHEMA) as writer,
        ):
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))

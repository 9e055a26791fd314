"""Encoded images, decoded when a batch is asked for, in threads, with a bounded cache.

Dimensions: N images of a split, B images of one reading, S slots of the cache, C channels,
H W pixels, X bytes of a hash.
"""

import errno
import hashlib
import math
import threading
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from runtime_pruning.datasets.decoding import Fit, decode
from runtime_pruning.datasets.images import Int64Array, LazyImages, UInt8Array
from runtime_pruning.datasets.parallel import map_rows
from runtime_pruning.errors import DataError

# Decoded images that a process keeps: all of a small dataset, next to nothing of a large one.
CACHE_BYTES = 128 * 2**20
HASH_BYTES = 32  # of SHA-256


class EncodedImages(Protocol):
    """Where encoded images lie; it pickles small."""

    def __len__(self) -> int:
        """Return how many there are."""

    def open(self, row: int) -> Path | BytesIO:
        """Return a file that Pillow can open."""

    def name(self, row: int) -> str:
        """Return what messages call it."""


class ImageStore:
    """Decodes images at one size and keeps the ones read last, within a bound.

    An image's only slot in the cache is its row modulo their number, so what fits is kept whole.

    Args:
        encoded: where the images are.
        size: pixels of each side.
        fit: how an image of another shape becomes square.
        cache_bytes: bound of the cache, which is not pickled.
        hash_NX: SHA-256 of each image's encoded bytes, shape (N, 32), where they are known.
    """

    def __init__(
        self,
        encoded: EncodedImages,
        size: int,
        fit: Fit,
        cache_bytes: int = CACHE_BYTES,
        hash_NX: UInt8Array | None = None,
    ) -> None:
        self.encoded = encoded
        self.size = size
        self.fit: Fit = fit
        self.cache_bytes = cache_bytes
        self.hash_NX = hash_NX
        self.image_shape = (3, size, size)
        slots = min(len(encoded), cache_bytes // math.prod(self.image_shape))
        self._lock = threading.Lock()
        self._row_S = np.full(max(slots, 1), -1)
        # Memory is taken as slots are filled.
        self._images_SCHW = np.empty((max(slots, 1), *self.image_shape), np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.encoded, self.size, self.fit, self.cache_bytes, self.hash_NX)

    def read(self, rows_B: Int64Array) -> UInt8Array:
        """Return ``images_BCHW``, memory of the caller's own.

        Raises:
            DataError: an image cannot be decoded; the message names it.
        """
        images_BCHW = np.empty((len(rows_B), *self.image_shape), np.uint8)
        slot_B = rows_B % len(self._row_S)
        with self._lock:
            kept_B = self._row_S[slot_B] == rows_B
            images_BCHW[kept_B] = self._images_SCHW[slot_B[kept_B]]
        missing = np.flatnonzero(~kept_B)
        self._decode(rows_B, missing, images_BCHW)
        with self._lock:
            self._images_SCHW[slot_B[missing]] = images_BCHW[missing]
            self._row_S[slot_B[missing]] = rows_B[missing]
        return images_BCHW

    def _decode(self, rows_B: Int64Array, places: Int64Array, images_BCHW: UInt8Array) -> None:
        """Decode the images of some places of a batch, on the cores that torch may use."""

        def work(some: range) -> None:
            for place in places[some.start : some.stop]:
                row = int(rows_B[place])
                name, source = self.encoded.name(row), self.encoded.open(row)
                images_BCHW[place] = decode(source, self.size, self.fit, name=name)

        threads = torch.get_num_threads()
        for _ in map_rows(
            len(places), work, threads=threads, chunk=1 + len(places) // 4 // threads
        ):
            pass

    def hashes(self, rows_N: Int64Array) -> UInt8Array:
        """Return the SHA-256 of each image's encoded bytes, shape (N, 32).

        All bytes are read unless the hashes were given.

        Raises:
            DataError: a file cannot be read; the message names it.
        """
        if self.hash_NX is not None:
            return self.hash_NX[rows_N]
        hash_NX = np.empty((len(rows_N), HASH_BYTES), np.uint8)

        def work(some: range) -> None:
            for place in some:
                hash_NX[place] = np.frombuffer(self._hash(int(rows_N[place])), np.uint8)

        for _ in map_rows(len(rows_N), work, threads=torch.get_num_threads(), chunk=256):
            pass
        return hash_NX

    def _hash(self, row: int) -> bytes:
        try:
            return hashlib.sha256(content_of(self.encoded.open(row))).digest()
        except OSError as error:
            raise DataError(f"{self.encoded.name(row)} must be readable: {error}") from error


def content_of(source: Path | BytesIO) -> bytes | memoryview:
    """Return the bytes of a regular file or a buffer.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    if isinstance(source, BytesIO):
        return source.getbuffer()
    if source.exists() and not source.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")  # a pipe would be waited for
    return source.read_bytes()


class StoredImages(LazyImages):
    """Some images of a store, in an order of their own.

    Args:
        store: shared by all splits of a dataset.
        rows_N: which of its images.
    """

    def __init__(self, store: ImageStore, rows_N: Int64Array) -> None:
        self.store = store
        self.rows_N = rows_N

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, size, size)."""
        return self.store.image_shape

    def __len__(self) -> int:
        return len(self.rows_N)

    def read(self, rows_B: Int64Array) -> UInt8Array:
        """Return ``images_BCHW``, decoded now unless they are in the store's cache."""
        return self.store.read(self.rows_N[rows_B])

    def content_hash(self) -> bytes:
        """Return a hash of the images' encoded bytes, their size and how they are fitted.

        Bytes and not names, sizes or dates: a copy on another machine has other dates, and an image
        that was replaced under its name may have the same size.
        """
        digest = hashlib.sha256(f"{self.store.size} {self.store.fit}".encode())
        digest.update(self.store.hashes(self.rows_N).data)
        return digest.digest()

    def take(self, rows_B: Int64Array) -> Self:
        """Return the images at ``rows_B``, none of them read."""
        return type(self)(self.store, self.rows_N[rows_B])

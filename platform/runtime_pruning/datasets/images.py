"""Images that are not held in memory: they look like an array and are made when asked for.

Dimensions: N images, B images of one reading, C channels, H W pixels.
"""

import abc
import hashlib
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

HASHED = 256  # images that are in memory at once while all are hashed


class LazyImages(abc.ABC):
    """Stands where an array of shape (N, C, H, W) would; indexing returns arrays of its own.

    It must pickle small: a split takes it to other processes.
    """

    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)
    ndim: ClassVar[int] = 4

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return N."""

    @abc.abstractmethod
    def read(self, rows_B: Int64Array) -> UInt8Array:
        """Return ``images_BCHW``; the rows are in [0, N), in any order."""

    @abc.abstractmethod
    def take(self, rows_B: Int64Array) -> Self:
        """Return the images at rows in [0, N), none of them read."""

    def content_hash(self) -> bytes:
        """Return a SHA-256 that tells these images, in their order, from all others.

        It must be the same on all machines. Here it is made of the pixels, all of which are read: a
        subclass that knows its images otherwise, by a hash of their files, say, overrides it.
        """
        digest = hashlib.sha256()
        for start in range(0, len(self), HASHED):
            digest.update(np.ascontiguousarray(self[start : start + HASHED]).data)
        return digest.digest()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (len(self), *self.image_shape)

    def rows(self, index: slice | npt.ArrayLike) -> Int64Array:
        """Return the rows that an index means, as numpy counts.

        Raises:
            IndexError: a row outside the images, or an index that is no integer.
        """
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        rows_B = np.asarray(index)
        if rows_B.ndim != 1 or not (np.issubdtype(rows_B.dtype, np.integer) or not rows_B.size):
            raise IndexError(f"Images are taken by a slice or a list of integers, not {index!r}.")
        rows_B = rows_B.astype(np.int64)
        outside_B = (rows_B < -len(self)) | (rows_B >= len(self))
        if outside_B.any():
            raise IndexError(f"There is no image {rows_B[outside_B][0]}: there are {len(self)}.")
        return rows_B % max(len(self), 1)

    def __getitem__(self, index: slice | npt.ArrayLike) -> UInt8Array:
        """Return ``images_BCHW`` at a slice or at integers; nothing keeps what is returned."""
        return self.read(self.rows(index))

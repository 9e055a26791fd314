"""Images that are not in memory: what the base class makes of two methods of a subclass."""

import hashlib

import numpy as np

from runtime_pruning.datasets import LazyImages
from runtime_pruning.datasets.images import HASHED, Int64Array, UInt8Array


class Counted(LazyImages):
    """Image n is one row of two pixels, n / 256 and n % 256."""

    def __init__(self, numbers_N: Int64Array) -> None:
        self.numbers_N = numbers_N

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, 1, 2

    def __len__(self) -> int:
        return len(self.numbers_N)

    def read(self, rows_B: Int64Array) -> UInt8Array:
        numbers_B = self.numbers_N[rows_B]
        pixels_BW = np.stack([numbers_B // 256, numbers_B % 256], axis=1)
        return pixels_BW.astype(np.uint8).reshape(-1, 1, 1, 2)

    def take(self, rows_B: Int64Array) -> "Counted":
        return Counted(self.numbers_N[rows_B])


def test_the_content_hash_is_that_of_all_pixels_however_many() -> None:
    count = 2 * HASHED + 1
    written = b"".join(n.to_bytes(2, "big") for n in range(count))
    images = Counted(np.arange(count))
    assert images.content_hash() == hashlib.sha256(written).digest()
    assert images.take(np.arange(count - 1)).content_hash() != images.content_hash()

"""Images that are decoded when they are asked for: indexed as arrays are, within a bound of memory.

The twelve images are plain: image n is of brightness 10 n.
"""

import hashlib
import io
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from runtime_pruning.datasets.folder import FileImages
from runtime_pruning.datasets.stored import ImageStore, StoredImages
from runtime_pruning.errors import DataError

BYTES = 3 * 8 * 8  # of one decoded image


class Plain:
    """Encoded images of even brightness; counts how often one is opened."""

    def __init__(self, count: int = 12, side: int = 8) -> None:
        self.side = side
        self.count = count
        self.opened = 0

    def __len__(self) -> int:
        return self.count

    def open(self, row: int) -> io.BytesIO:
        self.opened += 1
        file = io.BytesIO()
        Image.new("L", (self.side, self.side), 10 * row % 256).save(file, "PNG")
        file.seek(0)
        return file

    def name(self, row: int) -> str:
        return f"image {row}"


def stored(cached: int = 12) -> StoredImages:
    return StoredImages(ImageStore(Plain(), 8, "crop", cached * BYTES), np.arange(12))


def brightness(images_BCHW: np.ndarray) -> list[int]:
    assert images_BCHW.dtype == np.uint8
    assert images_BCHW.shape[1:] == (3, 8, 8)
    return [image.flat[0] // 10 for image in images_BCHW]


def test_it_is_indexed_like_an_array() -> None:
    images = stored()
    assert (images.shape, images.ndim, images.dtype) == ((12, 3, 8, 8), 4, np.uint8)
    array = np.arange(12)
    everything = slice(None)
    for index in (slice(2, 5), everything, slice(-3, None), slice(9, 99), slice(0, 9, 4), [3, -1]):
        assert brightness(images[index]) == array[index].tolist(), index
    assert brightness(images[np.array([7, 7, 0])]) == [7, 7, 0]
    assert brightness(images[slice(5, 5)]) == brightness(images[[]]) == []


@pytest.mark.parametrize("index", [[12], [-13], 3, [0.5], [[1, 2]], [True, False]])
def test_what_is_no_list_of_rows_is_refused(index: object) -> None:
    with pytest.raises(IndexError):
        stored()[index]  # type: ignore[index]


def test_some_of_the_images_keep_their_own_order() -> None:
    some = stored().take(np.array([9, 1, 4]))
    assert brightness(some[:]) == [9, 1, 4]
    assert brightness(some.take(np.array([2, 0]))[:]) == [4, 9]


def test_what_fits_the_cache_is_decoded_once() -> None:
    images = stored()
    encoded = images.store.encoded
    assert isinstance(encoded, Plain)
    for _ in range(3):
        assert brightness(images[:]) == list(range(12))
    assert encoded.opened == 12


@pytest.mark.parametrize("cached", [0, 1, 5])
def test_a_cache_that_is_too_small_changes_no_image(cached: int) -> None:
    images = stored(cached)
    random = np.random.default_rng(0)
    for _ in range(30):
        rows = random.integers(0, 12, 7)
        assert brightness(images[rows]) == rows.tolist()


def test_changing_what_was_returned_changes_no_image() -> None:
    images = stored()
    images[:][...] = 255
    assert brightness(images[:]) == list(range(12))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_threads_put_each_image_in_its_place() -> None:
    rows = np.random.default_rng(1).integers(0, 12, 100)
    assert brightness(stored(0)[rows]) == rows.tolist()


def test_the_content_hash_is_of_encoded_bytes_size_and_fit() -> None:
    images = stored()
    written = hashlib.sha256(b"8 crop")
    for row in range(12):
        written.update(hashlib.sha256(Plain().open(row).getvalue()).digest())
    assert images.content_hash() == written.digest()
    others = [
        images.take(np.arange(11)),
        images.take(np.arange(12)[::-1]),
        StoredImages(ImageStore(Plain(), 4, "crop"), np.arange(12)),
        StoredImages(ImageStore(Plain(), 8, "stretch"), np.arange(12)),
    ]
    assert len({images.content_hash(), *(other.content_hash() for other in others)}) == 5


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = FileImages(str(tmp_path), pa.array(["a/1.png"]))
    with pytest.raises(DataError, match=r"a/1\.png' must be readable"):
        StoredImages(ImageStore(gone, 8, "crop"), np.arange(1)).content_hash()


def test_only_addresses_are_pickled() -> None:
    images = stored()
    images[:]
    stream = pickle.dumps(images)
    assert len(stream) < 12 * BYTES
    assert brightness(pickle.loads(stream)[3:5]) == [3, 4]


def peak_bytes(count: int) -> int:
    """Return the most memory that one pass over so many images takes, in batches of eight."""
    store = ImageStore(Plain(count, 16), 64, "crop", cache_bytes=8 * 3 * 64 * 64)
    images = StoredImages(store, np.arange(count))
    tracemalloc.start()
    try:
        for start in range(0, count, 8):
            images[start : start + 8]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_dataset() -> None:
    peak_bytes(16)  # what is imported or made once
    small, large = peak_bytes(32), peak_bytes(256)
    assert large < 1.5 * small, "eight times as many images"
    assert large < 256 * 3 * 64 * 64 / 4, "not even a quarter of the decoded images"

"""Through Ray's object store: one copy per node, whatever the number of workers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from runtime_pruning import datasets
from runtime_pruning.datasets import DatasetInfo, TrainingSplit

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

INFO = DatasetInfo("noise", ("a", "b"), (3, 32, 32))
COUNT = 4_000  # images, 12 MB


class Place(NamedTuple):
    """Where a worker's image array lies."""

    file: str  # that backs the mapping
    offset: int  # of the first pixel in that file
    writeable: bool
    pixel_sum: int
    kind: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Reader:
    """A worker that says where the images that it was given lie in its memory."""

    def place(self, split: TrainingSplit) -> Place:
        images = split.images_NCHW
        address = images.ctypes.data
        for line in Path("/proc/self/maps").read_text().splitlines():
            match = re.match(r"(\w+)-(\w+) \S+ (\w+) \S+ \S+ *(.*)", line)
            assert match, line
            start, end, offset = (int(match[group], 16) for group in (1, 2, 3))
            if start <= address < end:
                return Place(
                    match[4],
                    offset + address - start,
                    images.flags.writeable,
                    int(images.sum(dtype=np.int64)),
                    type(split).__name__,
                )
        raise AssertionError("the array is in no mapping")


@pytest.mark.usefixtures("cluster")
def test_two_workers_read_the_same_shared_memory() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (COUNT, 3, 32, 32), np.uint8)
    split = TrainingSplit.from_arrays(INFO, images, np.arange(COUNT) % 2)
    reference = ray.put(split)
    readers = [ray.remote(num_cpus=0)(Reader).remote() for _ in range(2)]
    first, second = ray.get([reader.place.remote(reference) for reader in readers])
    assert "plasma" in first.file
    assert first == second
    assert not first.writeable
    assert first.pixel_sum == int(images.sum(dtype=np.int64))
    assert first.kind == "TrainingSplit"


@pytest.mark.usefixtures("cluster")
def test_a_whole_dataset_arrives_equal() -> None:
    dataset = datasets.load("digits")
    again = ray.get(ray.put(dataset))
    for split, other in zip(dataset.splits, again.splits, strict=True):
        assert other.table.equals(split.table)

"""The contract suite for datasets notices what it is there to notice."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from runtime_pruning import datasets
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.testing.datasets import DatasetContract


class OneClassPolicy(DatasetContract):
    dataset_name = "digits"

    def load(self) -> ImageDataset:
        digits = datasets.load("digits")
        rows = np.flatnonzero(digits.policy.labels_N == 3)
        return replace(digits, policy=digits.policy.take(rows))


class DarkTraining(DatasetContract):
    dataset_name = "digits"

    def load(self) -> ImageDataset:
        digits = datasets.load("digits")
        whole = digits.training
        dark = whole.images_NCHW // 16
        arrays = (digits.info, dark, whole.labels_N, whole.ids_N)
        return replace(digits, training=type(whole).from_arrays(*arrays))


class OtherImagesEachTime(DatasetContract):
    dataset_name = "digits"
    sizes: Iterator[int] = iter(range(100, 0, -1))

    def load(self) -> ImageDataset:
        digits = datasets.load("digits")
        return replace(digits, policy=digits.policy.take(np.arange(next(self.sizes))))


class AnotherHashEachTime(DatasetContract):
    dataset_name = "digits"
    hashes: Iterator[int] = iter(range(100))

    def load(self) -> ImageDataset:
        digits = datasets.load("digits")
        vars(digits.policy)["_content_hash"] = str(next(self.hashes))
        return digits


class AnotherName(DatasetContract):
    dataset_name = "digits-of-mine"

    def load(self) -> ImageDataset:
        return datasets.load("digits")


@pytest.mark.parametrize(
    ("suite", "test"),
    [
        (OneClassPolicy, "test_each_split_holds_each_class"),
        (DarkTraining, "test_pixels_use_the_range_of_a_byte"),
        (OtherImagesEachTime, "test_loading_twice_gives_the_same_images"),
        (AnotherHashEachTime, "test_its_content_hash_is_of_the_content_alone"),
        (AnotherName, "test_it_is_known_by_its_name"),
    ],
)
def test_a_broken_dataset_fails_its_contract(suite: type[DatasetContract], test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(), test)()

"""CIFAR-10 as it is published: the contract of a dataset, sizes, classes, mean."""

import os
from pathlib import Path

import numpy as np
import pytest

from runtime_pruning.testing.datasets import DatasetContract

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RUNTIME_PRUNING_DATA") or ROOT.parent / "shared" / "data")


@pytest.mark.skipif(
    not (DATA / "cifar10-train.parquet").is_file(),
    reason="needs the Parquet files in RUNTIME_PRUNING_DATA",
)
class TestCifar10(DatasetContract):
    dataset_name = "cifar10"
    data_dir = DATA

    def test_sizes(self) -> None:
        assert [len(split) for split in self.dataset.splits] == [40_000, 5_000, 5_000, 10_000]

    def test_classes_are_balanced_in_each_file(self) -> None:
        training, policy, validation, test = (
            np.bincount(split.labels_N) for split in self.dataset.splits
        )
        assert (training + policy + validation).tolist() == [5_000] * 10
        assert test.tolist() == [1_000] * 10

    def test_the_training_files_pixel_mean_is_the_published_one(self) -> None:
        means_C = [split.images_NCHW.mean((0, 2, 3)) for split in self.dataset.splits[:3]]
        mean_C = np.average(means_C, axis=0, weights=[8, 1, 1]) / 255
        assert mean_C == pytest.approx([0.49140, 0.48216, 0.44653], abs=1e-5)

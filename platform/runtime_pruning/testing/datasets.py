# ruff: noqa: D102 (a test's name says what it checks)
"""The contract of a dataset plugin.

In a test file of the plugin::

    from runtime_pruning.testing.datasets import DatasetContract

    class TestMyDataset(DatasetContract):
        dataset_name = "my-dataset"

A subclass may set ``data_dir`` or override `load` to read from elsewhere.
"""

import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from runtime_pruning import datasets
from runtime_pruning.datasets import ImageDataset

PICKLE_OVERHEAD = 4_096  # bytes of a pickled dataset, its three buffers per split left out
SAMPLE = 1_000  # images of a split that are looked at where they are not all in memory


class DatasetContract:
    """Tests that any dataset must pass; pytest collects them in each subclass."""

    dataset_name: ClassVar[str]
    data_dir: ClassVar[Path | None] = None
    _loaded: ClassVar[ImageDataset]

    def load(self) -> ImageDataset:
        """Load the dataset afresh."""
        return datasets.load(self.dataset_name, self.data_dir)

    @property
    def dataset(self) -> ImageDataset:
        """The dataset, loaded once per test class."""
        suite = type(self)
        if "_loaded" not in vars(suite):
            suite._loaded = self.load()
        return suite._loaded

    def test_it_is_known_by_its_name(self) -> None:
        assert self.dataset.info.name == self.dataset_name
        assert self.dataset_name in datasets.names()

    def test_its_splits_are_arrow_tables_of_the_stated_form(self) -> None:
        info = self.dataset.info
        for split in self.dataset.splits:
            in_memory = isinstance(split.images_NCHW, np.ndarray)
            assert split.table.schema.equals(info.schema if in_memory else info.label_schema)
            assert split.images_NCHW.shape == (len(split), *info.image_shape)
            assert split.images_NCHW.dtype == np.uint8
            assert split.labels_N.dtype == split.ids_N.dtype == np.int64

    def test_each_split_holds_each_class(self) -> None:
        everything = set(range(len(self.dataset.info.classes)))
        for split in self.dataset.splits:
            assert set(split.labels_N.tolist()) == everything, split

    def test_pixels_use_the_range_of_a_byte(self) -> None:
        pixels = self.dataset.training.images_NCHW[:SAMPLE]
        assert pixels.max() > 127, "pixels must be scaled to 0..255"
        assert pixels.min() < pixels.max()

    def test_no_image_is_in_two_splits(self) -> None:
        ids = np.concatenate([split.ids_N for split in self.dataset.splits])
        assert len(np.unique(ids)) == len(ids)

    def test_images_cannot_be_changed(self) -> None:
        for split in self.dataset.splits:
            got = split.images_NCHW[:1]
            if got.flags.writeable:
                got ^= 255
                assert not np.array_equal(got, split.images_NCHW[:1])

    def test_loading_twice_gives_the_same_images(self) -> None:
        for first, second in zip(self.dataset.splits, self.load().splits, strict=True):
            assert np.array_equal(first.ids_N, second.ids_N)
            assert np.array_equal(first.labels_N, second.labels_N)
            assert np.array_equal(first.images_NCHW[:SAMPLE], second.images_NCHW[:SAMPLE])

    def test_its_content_hash_is_of_the_content_alone(self) -> None:
        policy = self.dataset.policy
        again = self.load().policy
        assert again.content_hash() == policy.content_hash()
        assert pickle.loads(pickle.dumps(policy)).content_hash() == policy.content_hash()
        assert policy.head(1).content_hash() != policy.content_hash()

    def test_it_pickles_without_copying_its_images(self) -> None:
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(self.dataset, protocol=5, buffer_callback=buffers.append)
        assert len(stream) < PICKLE_OVERHEAD + 32 * len(self.dataset.info.classes)
        restored: ImageDataset = pickle.loads(stream, buffers=buffers)
        for split, again in zip(self.dataset.splits, restored.splits, strict=True):
            if isinstance(split.images_NCHW, np.ndarray):
                assert np.shares_memory(split.images_NCHW, np.asarray(again.images_NCHW))
            assert np.array_equal(split.images_NCHW[:SAMPLE], again.images_NCHW[:SAMPLE])
            assert again.table.equals(split.table)
            assert type(again) is type(split)

    def test_its_images_become_floats_between_0_and_1(self) -> None:
        images_NCHW = datasets.to_float(self.dataset.validation.images_NCHW[:8])
        assert images_NCHW.dtype == torch.float32
        assert images_NCHW.min() >= 0
        assert images_NCHW.max() <= 1

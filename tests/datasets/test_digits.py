"""Digits: stratified splits that never move."""

import numpy as np

from runtime_pruning.testing.datasets import DatasetContract


class TestDigits(DatasetContract):
    dataset_name = "digits"

    def test_sizes(self) -> None:
        assert [len(split) for split in self.dataset.splits] == [897, 250, 300, 350]
        assert sum([897, 250, 300, 350]) == 1_797

    def test_each_split_is_stratified(self) -> None:
        # The rarest class has 174 images of 1,797 (9.7 %), the commonest 183 (10.2 %).
        for split in self.dataset.splits:
            counts = np.bincount(split.labels_N)
            assert counts.min() >= int(174 / 1_797 * len(split)) - 1
            assert counts.max() <= int(183 / 1_797 * len(split)) + 2

    def test_full_ink_is_255_and_half_ink_128(self) -> None:
        # The source's levels 0, 8 and 16 of 16; 127.5 rounds to the even neighbour.
        values = set(np.unique(self.dataset.training.images_NCHW).tolist())
        assert {0, 128, 255} <= values
        assert len(values) == 17

    def test_the_splits_are_those_of_the_first_release(self) -> None:
        assert [split.ids_N[:3].tolist() for split in self.dataset.splits] == [
            [143, 70, 495],
            [961, 324, 582],
            [583, 1533, 85],
            [528, 1758, 304],
        ]

    def test_an_id_is_the_row_in_the_source(self) -> None:
        from sklearn.datasets import load_digits

        source = load_digits()
        for split in self.dataset.splits:
            assert np.array_equal(source.target[split.ids_N], split.labels_N)
            levels_NHW = np.rint(split.images_NCHW[:, 0] * (16 / 255))
            assert np.array_equal(source.images[split.ids_N], levels_NHW)

"""Cluttered digits: sources apart by split, difficulty by id, the same pixels on all machines."""

import math
import pickle

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from runtime_pruning import datasets
from runtime_pruning.datasets import cluttered_digits
from runtime_pruning.datasets.cluttered_digits import _Canvas, _Placing, difficulty, source_rows
from runtime_pruning.datasets.digits import source_digits, split_rows
from runtime_pruning.testing.datasets import DatasetContract


class TestClutteredDigits(DatasetContract):
    dataset_name = "cluttered-digits"

    def test_sizes(self) -> None:
        assert [len(split) for split in self.dataset.splits] == [16_000, 3_000, 3_000, 5_000]

    def test_no_source_digit_is_in_two_splits(self) -> None:
        used = [set(source_rows(split.ids_N).tolist()) for split in self.dataset.splits]
        assert [len(each) for each in used] == [897, 250, 300, 350]
        assert len(set.union(*used)) == 1_797

    def test_the_sources_of_a_split_are_those_of_the_digits(self) -> None:
        for split, source in zip(self.dataset.splits, datasets.load("digits").splits, strict=True):
            assert set(source_rows(split.ids_N).tolist()) == set(source.ids_N.tolist())

    def test_a_split_says_what_its_images_were_made_from(self) -> None:
        for split in (*self.dataset.splits, pickle.loads(pickle.dumps(self.dataset.test))):
            assert np.array_equal(split.sources_N, source_rows(split.ids_N))
        assert datasets.load("digits").test.sources_N is None

    def test_a_label_is_its_sources(self) -> None:
        _, labels = source_digits()
        for split in self.dataset.splits:
            assert np.array_equal(labels[source_rows(split.ids_N)], split.labels_N)

    def test_classes_and_difficulties_are_spread_evenly_over_any_head(self) -> None:
        for split in self.dataset.splits:
            head = split.head(1_000)
            assert 85 <= np.bincount(head.labels_N).min() <= np.bincount(head.labels_N).max() <= 115
            tenths = np.bincount((10 * difficulty(head.ids_N)).astype(int), minlength=10)
            assert 97 <= tenths.min() <= tenths.max() <= 103

    def test_the_pixels_are_the_same_on_all_machines(self) -> None:
        assert self.dataset.content_hash() == "496a668e056ad59c5d15e15952083500"

    def test_what_is_drawn_now_is_what_was_kept(self) -> None:
        levels, _ = source_digits()
        validation = self.dataset.validation.head(cluttered_digits.CHUNK)
        ids = validation.ids_N
        drawn = _Canvas(levels).draw(ids, source_rows(ids), split_rows()[2])
        assert np.array_equal(drawn, validation.images_NCHW[:, 0])

    def test_easy_images_are_told_by_their_neighbours_and_hard_ones_are_not(self) -> None:
        training, validation = (
            self.dataset.training.head(4_000),
            self.dataset.validation.head(1_500),
        )
        neighbours = KNeighborsClassifier(3)
        neighbours.fit(training.images_NCHW.reshape(4_000, -1) / 255, training.labels_N)
        told = neighbours.predict(validation.images_NCHW.reshape(1_500, -1) / 255)
        right, hard = told == validation.labels_N, difficulty(validation.ids_N)
        easiest, hardest = right[hard < 0.2].mean(), right[hard >= 0.8].mean()
        assert easiest > 0.8
        assert hardest < 0.4


def test_difficulty_goes_by_the_golden_ratio() -> None:
    expected = [0, 0.6180339887, 0.2360679775, 0.8541019662]
    assert difficulty(np.arange(4)) == pytest.approx(expected, abs=1e-9)


def test_ink_is_read_between_pixels_and_is_none_outside() -> None:
    levels_GHW = np.zeros((2, 8, 8), np.int64)
    levels_GHW[1, 4, 3] = 16  # row 4, column 3
    x, y = np.array([3, 3.5, 3, 2, 7, -1, 8, 99, -99]), np.array([4, 4, 4.75, 4, 7, -1, 8, 4, 4])
    canvas = _Canvas(levels_GHW)
    # All of it, a half (127.5), a quarter (63.75), cut to whole levels.
    expected = [255, 127, 63, 0, 0, 0, 0, 0, 0]
    assert canvas._ink(np.array([1]), x[None, None], y[None, None]).tolist() == [[expected]]
    assert not canvas._ink(np.array([0]), x[None, None], y[None, None]).any()


def test_a_digit_that_is_turned_and_scaled_is_read_where_it_lies() -> None:
    one = np.ones(1)
    quarter = _Placing(5 * one, 2 * one, 2 * one, math.pi / 2 * one)
    right_NHW, below_NHW = quarter.source_points(8)
    # A quarter turn: what is 2 pixels below the middle lies 1 source pixel to its right.
    assert (right_NHW[0, 4, 5], below_NHW[0, 4, 5]) == pytest.approx((1, 0))
    assert (right_NHW[0, 2, 7], below_NHW[0, 2, 7]) == pytest.approx((0, -1))

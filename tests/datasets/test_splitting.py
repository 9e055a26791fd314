"""Splits that a dataset does not come with: disjoint, stratified, the same each time."""

import numpy as np
import pytest

from runtime_pruning.datasets.splitting import (
    SourceParts,
    SplitRows,
    stratified_order,
    stratified_split,
)
from runtime_pruning.errors import DataError

CLASSES = ("cat", "dog")


def given(train: str, validation: str = "", test: str = "") -> SourceParts:
    """Return parts of which each letter is an image: c for cat, d for dog."""
    labels_N = np.array(
        [CLASSES.index({"c": "cat", "d": "dog"}[x]) for x in train + validation + test]
    )
    ends = np.cumsum([len(train), len(validation)])
    return SourceParts(labels_N, *np.split(np.arange(len(labels_N)), ends))


def cats_and_dogs(found: SourceParts, rows: SplitRows) -> list[tuple[int, int]]:
    return [tuple(np.bincount(found.labels_N[split], minlength=2).tolist()) for split in rows]


def test_all_four_are_cut_from_training_images_alone() -> None:
    found = given("c" * 100 + "d" * 30)
    rows = stratified_split(found, CLASSES)
    # A tenth, a tenth and a fifth of each class; training keeps the rest.
    assert cats_and_dogs(found, rows) == [(60, 18), (10, 3), (10, 3), (20, 6)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(130))
    assert all(
        np.array_equal(a, b) for a, b in zip(rows, stratified_split(found, CLASSES), strict=True)
    )


def test_without_a_test_part_the_validation_part_is_halved() -> None:
    found = given("c" * 20 + "d" * 20, "c" * 8 + "d" * 6)
    rows = stratified_split(found, CLASSES)
    assert cats_and_dogs(found, rows) == [(18, 18), (2, 2), (4, 3), (4, 3)]
    assert set(range(40, 54)) == {*rows.validation.tolist(), *rows.test.tolist()}


def test_a_test_part_is_the_test_split() -> None:
    found = given("c" * 20 + "d" * 20, test="ccd")
    rows = stratified_split(found, CLASSES)
    assert cats_and_dogs(found, rows) == [(16, 16), (2, 2), (2, 2), (2, 1)]
    assert set(rows.test.tolist()) == {40, 41, 42}


def test_parts_that_are_all_there_keep_their_images() -> None:
    found = given("c" * 10 + "d" * 10, "cd", "ddc")
    rows = stratified_split(found, CLASSES)
    assert cats_and_dogs(found, rows) == [(9, 9), (1, 1), (1, 1), (1, 2)]
    assert set(rows.validation.tolist()) == {20, 21}


def test_a_head_of_a_split_holds_the_classes_in_proportion() -> None:
    found = given("c" * 300 + "d" * 100)
    training = stratified_split(found, CLASSES).training
    assert np.bincount(found.labels_N[training[:40]]).tolist() == [30, 10]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (given("cccd" + "d" * 9), "at least 4 images in the training part, .* 'cat' has 3"),
        (given("cd" * 9, "cdd"), "at least 2 images in the validation part, .* 'cat' has 1"),
        (given("cd" * 9, "cd", "c"), "at least 1 images in the test part, .* 'dog' has 0"),
    ],
)
def test_a_class_that_cannot_be_in_each_split_is_named(found: SourceParts, message: str) -> None:
    with pytest.raises(DataError, match=message):
        stratified_split(found, CLASSES)


def test_stratified_order_spreads_each_class_evenly() -> None:
    # Six of class 0 stand at 1/12, 3/12, ..., 11/12; two of class 1 at 1/4 and 3/4, after the
    # zeros with which they tie.
    labels_N = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    order = stratified_order(labels_N, seed=3)
    assert labels_N[order].tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert sorted(order.tolist()) == list(range(8))


def test_the_seed_decides_the_order() -> None:
    labels_N = np.repeat(np.arange(10), 30)
    one = stratified_order(labels_N, seed=1)
    assert np.array_equal(one, stratified_order(labels_N, seed=1))
    assert not np.array_equal(one, stratified_order(labels_N, seed=2))

"""Which images belong to which of the four splits, where a dataset does not say.

Dimensions: N images in all, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.errors import DataError

# Shares of the training images that are held out where nothing else is given.
POLICY, VALIDATION, TEST = 0.1, 0.1, 0.2
SPLIT_SEED = 0


class SourceParts(NamedTuple):
    """What a dataset comes as: rows of labelled images, in one to three parts."""

    labels_N: Int64Array
    train: Int64Array  # rows
    validation: Int64Array  # rows; none where the dataset has no such part
    test: Int64Array  # likewise


class SplitRows(NamedTuple):
    """SplitRows of each split. Any head of one holds the classes in proportion."""

    training: Int64Array
    policy: Int64Array
    validation: Int64Array
    test: Int64Array


def stratified_split(given: SourceParts, classes: Sequence[str]) -> SplitRows:
    """Return the four splits, the same ones each time; each holds each class.

    The policy split is always cut from the training part, the validation split where there is
    no such part. Without a test part the validation part's second half is the test split, and
    without that it is cut from the training part too.

    Args:
        given: the parts; no row is in two.
        classes: names by label.

    Raises:
        DataError: a class has too few images to be in each split.
    """

    def divide(part: str, rows: Int64Array, *shares: float) -> list[Int64Array]:
        return _divide(given.labels_N, rows, shares, classes, part)

    if len(given.validation) and len(given.test):
        policy, training = divide("training", given.train, POLICY)
        (validation,) = divide("validation", given.validation)
        (test,) = divide("test", given.test)
    elif len(given.validation):
        policy, training = divide("training", given.train, POLICY)
        validation, test = divide("validation", given.validation, 0.5)
    elif len(given.test):
        policy, validation, training = divide("training", given.train, POLICY, VALIDATION)
        (test,) = divide("test", given.test)
    else:
        parts = divide("training", given.train, POLICY, VALIDATION, TEST)
        policy, validation, test, training = parts
    return SplitRows(training, policy, validation, test)


def stratified_order(labels_N: Int64Array, *, seed: int) -> Int64Array:
    """Return an order of the rows of which each stretch holds all classes in proportion.

    The images of a class are shuffled, then spread evenly over the whole order: the i-th of n
    stands at (i + 1/2) / n of it.
    """
    random = np.random.RandomState(seed)  # the legacy stream is frozen, so splits never move
    place_N = np.empty(len(labels_N))
    for label in np.unique(labels_N):
        rows = random.permutation(np.flatnonzero(labels_N == label))
        place_N[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((labels_N, place_N)).astype(np.int64)


def _divide(
    labels_N: Int64Array,
    rows: Int64Array,
    shares: Sequence[float],
    classes: Sequence[str],
    part: str,
) -> list[Int64Array]:
    """Return, of a part, a share of each class per entry of ``shares``, and the rest at the end."""
    rows = rows[stratified_order(labels_N[rows], seed=SPLIT_SEED)]
    labels = labels_N[rows]
    count_K = np.bincount(labels, minlength=len(classes))
    few = np.flatnonzero(count_K <= len(shares))
    if len(few):
        raise DataError(
            f"Each class must have at least {len(shares) + 1} images in the {part} part, one for "
            f"each split that is cut from it, but {classes[few[0]]!r} has {count_K[few[0]]}."
        )
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(rows), np.int64)  # of each row within its class
    rank[by_class] = np.arange(len(rows)) - (np.cumsum(count_K) - count_K)[labels[by_class]]
    divided, start_K = [], np.zeros(len(classes), np.int64)
    for share in shares:
        end_K = start_K + np.maximum(1, np.rint(share * count_K).astype(np.int64))
        divided.append(rows[(rank >= start_K[labels]) & (rank < end_K[labels])])
        start_K = end_K
    return [*divided, rows[rank >= start_K[labels]]]

"""The 1,797 handwritten digits that scikit-learn carries: 8x8 pixels, no download.

Source: UCI "Optical Recognition of Handwritten Digits", test part, 13 writers.
"""

from pathlib import Path

import numpy as np

from runtime_pruning.datasets.catalogue import register
from runtime_pruning.datasets.images import Int64Array
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)

INFO = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8))
SIZES = (897, 250, 300, 350)  # training, policy, validation, test
SPLIT_SEED = 0
INK_LEVELS = 16  # the source's pixels are 0 to 16


@register("digits")
def load_digits(data_dir: Path | None = None) -> ImageDataset:
    """Return the digits in stratified splits, the same ones each time; the folder is not read."""
    from sklearn.datasets import load_digits as sklearn_digits  # takes a second to import

    source = sklearn_digits()
    images_NCHW = np.rint(source.images[:, None] * (255 / INK_LEVELS)).astype(np.uint8)
    labels_N = source.target.astype(np.int64)
    ends = np.cumsum(SIZES)[:-1]
    training, policy, validation, test = (
        (images_NCHW[rows], labels_N[rows], rows)
        for rows in np.split(stratified_order(labels_N, seed=SPLIT_SEED), ends)
    )
    return ImageDataset(
        INFO,
        TrainingSplit.from_arrays(INFO, *training),
        PolicySplit.from_arrays(INFO, *policy),
        ValidationSplit.from_arrays(INFO, *validation),
        TestSplit.from_arrays(INFO, *test),
    )


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

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
from runtime_pruning.datasets.splitting import SPLIT_SEED, stratified_order

INFO = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8))
SIZES = (897, 250, 300, 350)  # training, policy, validation, test
INK_LEVELS = 16  # the source's pixels are 0 to 16


@register("digits")
def load_digits(data_dir: Path | None = None) -> ImageDataset:
    """Return the digits in stratified splits, the same ones each time; the folder is not read."""
    levels_NHW, labels_N = source_digits()
    images_NCHW = np.rint(levels_NHW[:, None] * (255 / INK_LEVELS)).astype(np.uint8)
    training, policy, validation, test = (
        (images_NCHW[rows], labels_N[rows], rows) for rows in split_rows()
    )
    return ImageDataset(
        INFO,
        TrainingSplit.from_arrays(INFO, *training),
        PolicySplit.from_arrays(INFO, *policy),
        ValidationSplit.from_arrays(INFO, *validation),
        TestSplit.from_arrays(INFO, *test),
    )


def source_digits() -> tuple[Int64Array, Int64Array]:
    """Return the source's levels of ink, 0 to 16, shape (N, 8, 8), and its labels."""
    from sklearn.datasets import load_digits as sklearn_digits  # takes a second to import

    source = sklearn_digits()
    return source.images.astype(np.int64), source.target.astype(np.int64)


def split_rows() -> list[Int64Array]:
    """Return the rows of the source that each split holds, in its order."""
    _, labels_N = source_digits()
    return np.split(stratified_order(labels_N, seed=SPLIT_SEED), np.cumsum(SIZES)[:-1])

"""Images and labels by name, splits as types, Arrow underneath.

``load("digits")`` returns an `ImageDataset` of four splits: *training* (the backbone learns on it),
*policy* (the agent's rewards come from it), *validation* (choices are made on it) and *test* (read
once). A third party names its loader under the entry-point group ``runtime_pruning.datasets``.
"""

from runtime_pruning.datasets import cifar10 as _cifar10
from runtime_pruning.datasets import cifar100 as _cifar100
from runtime_pruning.datasets import cluttered_digits as _cluttered_digits
from runtime_pruning.datasets import digits as _digits
from runtime_pruning.datasets import image_folder as _image_folder
from runtime_pruning.datasets.catalogue import DATA_ENV, DatasetLoader, get, load, names, register
from runtime_pruning.datasets.images import LazyImages
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    HeldOutSplit,
    ImageDataset,
    PolicySplit,
    Split,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.datasets.transforms import augment, to_float

__all__ = [
    "DATA_ENV",
    "DatasetInfo",
    "DatasetLoader",
    "HeldOutSplit",
    "ImageDataset",
    "LazyImages",
    "PolicySplit",
    "Split",
    "TestSplit",
    "TrainingSplit",
    "ValidationSplit",
    "augment",
    "get",
    "load",
    "names",
    "register",
    "to_float",
]

# Importing a module registers its dataset.
_BUILT_IN = (_cifar10, _cifar100, _cluttered_digits, _digits, _image_folder)

"""CIFAR-10: 60,000 colour photographs of ten classes; see `cifar`."""

from pathlib import Path

from runtime_pruning.datasets.catalogue import register
from runtime_pruning.datasets.cifar import Cifar
from runtime_pruning.datasets.splits import DatasetInfo, ImageDataset

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR10 = Cifar(DatasetInfo("cifar10", CLASSES, (3, 32, 32)), "CIFAR-10", "CIFAR10")


@register("cifar10")
def load_cifar10(data_dir: Path | None = None) -> ImageDataset:
    """Return CIFAR-10 from a folder, or downloaded; see `Cifar.load`."""
    return CIFAR10.load(data_dir)

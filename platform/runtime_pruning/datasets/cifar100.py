"""CIFAR-100: 60,000 colour photographs of a hundred classes (the fine labels); see `cifar`."""

from pathlib import Path

from runtime_pruning.datasets.catalogue import register
from runtime_pruning.datasets.cifar import Cifar
from runtime_pruning.datasets.splits import DatasetInfo, ImageDataset

# In the order of the fine labels, which is the alphabet's.
_NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = Cifar(
    DatasetInfo("cifar100", tuple(_NAMES.split()), (3, 32, 32)), "CIFAR-100", "CIFAR100"
)


@register("cifar100")
def load_cifar100(data_dir: Path | None = None) -> ImageDataset:
    """Return CIFAR-100 from a folder, or downloaded; see `Cifar.load`."""
    return CIFAR100.load(data_dir)

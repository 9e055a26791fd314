"""Images of which some need the second group of channels and some do not, and who knows which.

An image has three pixels' worth of colour: the answer where it is easy, the answer where it is
hard, and whether it is hard. The site's first group reads the easy answer, its second the hard
one. So an easy image is right with one group; a hard image whose answer is "yes" needs two, and a
hard one whose answer is "no" is right by default.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runtime_pruning.datasets import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)
from runtime_pruning.network import PrunableNetwork, trace

INFO = DatasetInfo(name="puzzle", classes=("no", "yes"), image_shape=(3, 2, 2))
# First convolution 3 * 3 * 4, site 3 * groups * 4, linear layer 2 * groups.
MACS = {1: 36 + 12 + 2, 2: 36 + 24 + 4}
POLICY_MACS = 3


def network() -> PrunableNetwork:
    """The network that reads the answers."""
    first, site, last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1), nn.Linear(2, 2)
    with torch.no_grad():
        for layer in (first, site, last):
            layer.weight.zero_()
            layer.bias.zero_()
        first.weight[:, :, 0, 0] = torch.eye(3)
        site.weight[0, 0], site.weight[1, 1] = 1.0, 1.0
        last.weight[1] = 1.0
        last.bias[0] = 0.5
    layers = [first, site, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last]
    return trace(nn.Sequential(*layers), INFO.image_shape, groups=2, align=1).eval()


def data(images: int = 200) -> ImageDataset:
    """Splits of which a quarter of the images are hard with the answer "yes"."""
    parts = []
    for number in range(4):
        labels_N = np.arange(images) % 2
        hard_N = np.arange(images) // 2 % 2
        pixels_NC = np.stack([labels_N * (1 - hard_N), labels_N * hard_N, hard_N], axis=1)
        images_NCHW = np.broadcast_to(pixels_NC[:, :, None, None] * 255, (images, 3, 2, 2))
        ids_N = np.random.default_rng(number).permutation(images) + number * images
        parts.append((images_NCHW.astype(np.uint8), labels_N, ids_N))
    kinds: list[Any] = [TrainingSplit, PolicySplit, ValidationSplit, TestSplit]
    splits = [kind.from_arrays(INFO, *part) for kind, part in zip(kinds, parts, strict=True)]
    return ImageDataset(INFO, *splits)


class Knowing:
    """Gives hard images two groups and easy ones one."""

    name = "knowing"
    macs_per_image = POLICY_MACS

    def start(self, batch: int) -> "Knowing":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        return 1 + (features_BF[:, 2] > 0.5).long()

"""A small real CNN that really masks, and images for it."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GROUPS = 2


class TinyRun:
    """A batch in `TinyNetwork`, standing before one of its two sites."""

    def __init__(self, network: "TinyNetwork", images_BCHW: Tensor) -> None:
        self._network = network
        self._x_BCHW = network.convs[0](images_BCHW).relu()
        self.site = 0
        self.executed_macs_B = torch.zeros(len(images_BCHW), dtype=torch.int64)

    @property
    def finished(self) -> bool:
        return self.site == 2

    @property
    def features_BF(self) -> Tensor:
        return self._x_BCHW.mean((2, 3))

    @property
    def logits_BK(self) -> Tensor:
        return self._network.linear(self._x_BCHW.mean((2, 3)))

    def advance(self, groups_B: Tensor) -> None:
        conv = self._network.convs[self.site + 1]
        kept_B = groups_B * conv.out_channels // GROUPS
        mask_BC = torch.arange(conv.out_channels) < kept_B[:, None]
        self._x_BCHW = conv(self._x_BCHW).relu() * mask_BC[:, :, None, None]
        self.executed_macs_B = self.executed_macs_B + 1
        self.site += 1


class TinyNetwork(nn.Module):
    """Three 3x3 convolutions, two of them sites, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 4, 6, 8)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.linear = nn.Linear(8, 5)
        self.groups = GROUPS
        self.feature_widths = (4, 6)

    def start(self, images_BCHW: Tensor, *, mode: str = "masked") -> TinyRun:
        return TinyRun(self, images_BCHW)


@pytest.fixture
def tiny_network() -> TinyNetwork:
    torch.manual_seed(0)
    return TinyNetwork()


@pytest.fixture
def settings(tiny_network: TinyNetwork) -> dict[str, Any]:
    """What an environment on the tiny network needs."""
    rng = np.random.default_rng(0)
    return {
        "network": tiny_network,
        "images": rng.integers(0, 256, (12, 3, 5, 5), dtype=np.uint8),
        "labels": rng.integers(0, 5, 12),
        "penalty": 0.1,
    }

"""Small networks whose operations, widths and MACs are worked out by hand in the tests."""

import torch
from torch import Tensor, nn

from runtime_pruning.network import PrunableNetwork, trace


class Residual(nn.Module):
    """Two sites on a stream of four channels: one inside the branch, one that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 1, bias=False)
        self.inside = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.onto = nn.Conv2d(8, 4, 1)
        self.pool = nn.MaxPool2d(2)
        self.linear = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images).relu()
        x = (x + self.onto(self.norm(self.inside(x)).relu())).relu()
        return self.linear(self.pool(x).mean((2, 3)))


def residual(groups: int = 4) -> PrunableNetwork:
    """Return the network above on images of 4 by 4 pixels, its numbers drawn from one seed.

    With streams whole its only site is ``inside``: 2, 4, 6 or 8 channels. MACs per image are 4 x 16
    of the first layer, 4 x 9 x 16 per channel inside, 4 x 16 per channel read by the next, 12 of
    the head: 76 + 640 per channel.
    """
    torch.manual_seed(0)
    network = trace(Residual().eval(), (1, 4, 4), groups=groups, align=1, streams=False)
    return network.eval()

"""Which channels may change places: those that no operation mixes in order."""

import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.network import order_channels, trace
from runtime_pruning.network.channel_coupling import coupled_channels


@torch.no_grad()
def test_what_is_not_known_to_keep_channels_apart_keeps_its_order() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 1)
            self.onto = nn.Conv2d(4, 4, 1)
            self.linear = nn.Linear(4, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = self.first(images)
            x = x + self.onto(x)
            return self.linear(x.softmax(1).mean((2, 3)))

    network = trace(Net(), (1, 2, 2), groups=2)
    onto = network.backbone.onto.weight.clone()
    assert order_channels(network) == ()
    assert torch.equal(network.backbone.onto.weight, onto)


def test_a_residual_add_ties_the_channels_of_its_stream() -> None:
    network = trace(
        backbones.create("resnet20-cifar", num_classes=10, image_shape=(3, 8, 8)), (3, 8, 8)
    )
    blocks = coupled_channels(network)
    # A block inside each of the nine residual branches, and one for each run of the stream's
    # channels that is born together: 16 in the stem, 16 and 32 more where shortcuts pad.
    widths = sorted(next(iter(block.values())).numel() for block in blocks)
    assert widths == sorted([16] * 3 + [32] * 3 + [64] * 3 + [16, 16, 32])
    streams = [block for block in blocks if len(block) > 2]
    for block in streams:
        assert len({places.numel() for places in block.values()}) == 1


def test_what_is_alone_in_a_branch_runs_through_that_branch_only() -> None:
    network = trace(
        backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8)), (1, 8, 8)
    )
    blocks = coupled_channels(network)
    assert [next(iter(block.values())).tolist() for block in blocks] == [
        list(range(width)) for width in (8, 16, 16, 32)
    ]

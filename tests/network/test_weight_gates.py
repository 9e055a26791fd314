"""Gates: their slope by hand, tied layers as one; a closed gate is a channel that is not read."""

import copy

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.network.surgery import prunable_groups, pruned
from runtime_pruning.network.weight_gates import GatedBackbone, binarised, plain_backbone

SHAPE = (3, 8, 8)


def gated_resnet() -> GatedBackbone:
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=SHAPE, seed=3)
    return GatedBackbone(backbone.eval(), prunable_groups(backbone, SHAPE))


def images() -> Tensor:
    return torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_a_gate_is_a_step_with_the_slope_of_a_parabola() -> None:
    scores = torch.tensor([-1.5, -0.5, 0.25, 1.0, 2.0], requires_grad=True)
    gates = binarised(scores)
    assert gates.tolist() == [0, 0, 1, 1, 1]
    torch.autograd.backward(gates.sum())
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 1, 1.5, 0, 0]


def test_the_last_gate_stays_open() -> None:
    assert binarised(torch.tensor([-3.0, -0.5, -2.0])).tolist() == [0, 1, 0]


def test_all_gates_are_open_before_they_have_learned() -> None:
    gated = gated_resnet()
    with torch.no_grad():
        assert torch.equal(gated(images()), gated.backbone(images()))
    assert [int(width) for width in gated.widths()] == [g.channels for g in gated.groups]
    assert {group.name for group in gated.gated} == {group.name for group in gated.groups}


def test_closed_channels_are_those_that_surgery_removes() -> None:
    """Random scorers close about half of each group, in tied layers the same."""
    gated, generator = gated_resnet(), torch.Generator().manual_seed(2)
    for scorer in gated.scorers.values():
        assert isinstance(scorer, nn.Linear)
        scorer.weight.data = torch.randn(scorer.weight.shape, generator=generator)
        scorer.bias.data.zero_()
    with torch.no_grad():
        logits = gated(images())
    keep = {
        name: torch.nonzero(scores > 0)[:, 0].tolist() for name, scores in gated.scores().items()
    }
    widths = {group.name: int(w) for group, w in zip(gated.groups, gated.widths(), strict=True)}
    assert widths == {name: len(channels) for name, channels in keep.items()}
    assert all(0 < len(channels) < 64 for channels in keep.values())
    plain = plain_backbone(copy.deepcopy(gated))
    removed = pruned(plain, SHAPE, keep).backbone
    with torch.no_grad():
        torch.testing.assert_close(removed(images()), logits, rtol=1e-4, atol=1e-4)


def test_gates_learn_to_close_where_open_ones_cost() -> None:
    gated = gated_resnet()
    optimiser = torch.optim.SGD(gated.scorers.parameters(), lr=1.0)
    for _ in range(12):
        optimiser.zero_grad()
        gated(images())
        torch.autograd.backward(torch.stack(gated.widths()).sum())
        optimiser.step()
    with torch.no_grad():
        gated(images())
    assert [int(width) for width in gated.widths()] == [1] * len(gated.groups)


class Concatenated(nn.Module):
    """Two convolutions whose channels a third reads together: neither has gates."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.three, self.linear = nn.Conv2d(8, 4, 1), nn.Linear(4, 2)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        both = torch.cat([self.one(images_BCHW), self.two(images_BCHW)], dim=1)
        result: Tensor = self.linear(self.three(both).mean((2, 3)))
        return result


def test_channels_that_are_read_among_others_have_no_gates() -> None:
    backbone = Concatenated().eval()
    gated = GatedBackbone(backbone, prunable_groups(backbone, SHAPE))
    assert [group.name for group in gated.gated] == ["three"]
    with torch.no_grad():
        gated(images())
    assert [float(width) for width in gated.widths()] == pytest.approx([4, 4, 4])

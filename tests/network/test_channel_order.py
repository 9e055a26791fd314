"""Bounds worked out by hand; permutations that change nothing but the order."""

import pytest
import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.network import channel_importance, order_channels, trace


def small_net() -> nn.Sequential:
    """Return first conv, site of 3 channels with batch norm, linear on 3 channels of 2x2."""
    return nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    )


class Streams(nn.Module):
    """Two streams of 4 and 8 channels, one branch onto each, zeros padded in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 1)
        self.inside = nn.Conv2d(4, 4, 1)
        self.onto = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.widen = nn.Conv2d(4, 8, 1, stride=2)
        self.linear = nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        x = (x + self.norm(self.onto(self.inside(x).relu()))).relu()
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.linear((shortcut + self.widen(x)).mean((2, 3)))


@torch.no_grad()
def test_importance_is_scale_times_l1_norm_and_orders_all_that_holds_the_channels() -> None:
    net = small_net().eval()
    conv, norm, linear = net[1], net[2], net[4]
    conv.weight[:, :, 0, 0] = torch.tensor([[1.0, -1.0], [2.0, 2.0], [3.0, 0.0]])
    norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0]))
    linear.weight[0] = torch.arange(12.0)
    network = trace(net, (1, 2, 2), groups=3)
    images_BCHW = torch.rand(2, 1, 2, 2)
    before_BK = network(images_BCHW)
    assert channel_importance(network)[0].tolist() == [2.0, 2.0, 6.0]
    assert order_channels(network) == (0,)
    assert norm.weight.tolist() == [2.0, 1.0, -0.5]
    assert conv.weight[:, :, 0, 0].tolist() == [[3.0, 0.0], [1.0, -1.0], [2.0, 2.0]]
    assert linear.weight[0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]
    torch.testing.assert_close(network(images_BCHW), before_BK)


def test_another_importance_may_be_given() -> None:
    network = trace(small_net(), (1, 2, 2), groups=3)
    norm = network.backbone[2]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    order_channels(network, [torch.tensor([0.0, 9.0, 5.0])])
    assert norm.weight.tolist() == [2.0, 3.0, 1.0]


@torch.no_grad()
def test_a_streams_channels_change_places_together_and_the_function_stays() -> None:
    net = Streams().eval()
    network = trace(net, (1, 4, 4), groups=2)
    images_BCHW = torch.rand(3, 1, 4, 4)
    before_BK = network(images_BCHW)
    first, onto, widen = (
        conv.weight[:, :, 0, 0].clone() for conv in (net.first, net.onto, net.widen)
    )
    # Sites: inside, onto, widen. The wide stream's channels 2 to 5 are the narrow one's, for which
    # both speak: 4 + 0, 3 + 0, 2 + 0, 1 + 5 of ten parts. Its others are free: 1, 2, 1.5, 0.5.
    onto_C = torch.tensor([4.0, 3.0, 2.0, 1.0])
    widen_C = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 5.0, 1.5, 0.5])
    scores = [torch.ones(4), onto_C, widen_C]
    assert order_channels(network, scores) == (0, 1, 2)
    torch.testing.assert_close(network(images_BCHW), before_BK)
    narrow = [3, 0, 1, 2]
    wide = [1, 6, 5, 2, 3, 4, 0, 7]
    assert torch.equal(net.first.weight[:, :, 0, 0], first[narrow])
    assert torch.equal(net.onto.weight[:, :, 0, 0], onto[narrow])
    assert torch.equal(net.widen.weight[:, :, 0, 0], widen[wide][:, narrow])


@pytest.mark.parametrize("name", ["resnet20-cifar", "resnet18"])
@torch.no_grad()
def test_every_site_of_a_residual_network_is_ordered_and_its_function_stays(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.create(name, num_classes=10, image_shape=(3, 32, 32)).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.1, 0.1)
    network = trace(backbone, (3, 32, 32)).eval()
    images_BCHW = torch.rand(2, 3, 32, 32)
    before_BK = network(images_BCHW)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert order_channels(network) == tuple(range(len(network.sites)))
    torch.testing.assert_close(network(images_BCHW), before_BK, rtol=1e-4, atol=1e-4)
    site = network.sites[1]
    assert not torch.equal(network.module(site.name).weight, before[f"{site.name}.weight"])


@torch.no_grad()
def test_a_norm_of_all_pixels_moves_with_its_channel() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), nn.PReLU(3), nn.Flatten()),
        *(nn.BatchNorm1d(12), nn.Linear(12, 5)),
    )
    for parameter in backbone.parameters():
        parameter.normal_()
    backbone[1].weight.copy_(torch.tensor([1.0, 2.0, 3.0])[:, None, None, None].expand(3, 4, 1, 1))
    backbone[4].weight.copy_(torch.tensor([8.0] * 4 + [3.0, 1.0, 3.0, 1.0] + [1.0] * 4))
    backbone[4].running_mean.normal_()
    network = trace(backbone, (3, 2, 2), groups=3, align=1).eval()
    (importance_C,) = channel_importance(network)
    assert importance_C.tolist() == [32.0, 16.0, 12.0]  # 4 weights of 1, 2, 3; scales 8, 2, 1
    images_BCHW = torch.rand(2, 3, 2, 2)
    before_BK = network.backbone(images_BCHW)
    assert order_channels(network, [torch.tensor([1.0, 2.0, 3.0])]) == (0,)
    assert backbone[1].weight[:, 0, 0, 0].tolist() == [3.0, 2.0, 1.0]
    torch.testing.assert_close(network.backbone(images_BCHW), before_BK)


@torch.no_grad()
def test_widths_of_statistics_are_not_channels() -> None:
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)),
        *(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(12, 5)),
    )
    network = trace(backbone, (3, 2, 2), groups=3, align=1).condition_batch_norm().eval()
    widths = backbone[3].narrow_widths.tolist()
    order_channels(network, [torch.arange(4.0), torch.arange(3.0), torch.arange(3.0)])
    assert backbone[3].narrow_widths.tolist() == widths == sorted(widths)

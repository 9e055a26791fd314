"""What is a site, what is not, and how a backbone that cannot be traced is refused."""

import pytest
import torch
from between import SHAPE, Lambda, pooled
from torch import Tensor, nn
from torchvision import models

from runtime_pruning.errors import TracingError
from runtime_pruning.network import PrunableNetwork, trace


def sites(network: PrunableNetwork) -> list[str]:
    return [site.name for site in network.sites]


def branches_on_data(features: Tensor) -> Tensor:
    return pooled(features if features.sum() > 0 else -features)


def test_the_first_convolution_is_no_site() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4, align=8)
    (site,) = network.sites
    assert (site.index, site.name, site.in_channels, site.channels) == (0, "second", 8, 8)
    assert (site.bounds, site.align) == ((0, 2, 4, 6, 8), 2)
    assert (network.feature_widths, network.num_classes, network.groups) == ((8,), 10, 4)


def test_resnet18_has_its_blocks_convolutions_and_no_shortcuts() -> None:
    expected = [f"layer{i}.{j}.conv{k}" for i in range(1, 5) for j in range(2) for k in (1, 2)]
    assert sites(trace(models.resnet18(weights=None), (3, 32, 32))) == expected


def test_without_streams_what_ends_in_an_add_is_no_site() -> None:
    network = trace(models.resnet18(weights=None), (3, 32, 32), streams=False)
    assert sites(network) == [f"layer{i}.{j}.conv1" for i in range(1, 5) for j in range(2)]
    network = trace(models.resnet50(weights=None), (3, 32, 32), streams=False)
    assert sites(network)[:4] == [f"layer1.{j}.conv{k}" for j in (0, 1) for k in (1, 2)]
    assert not network.graph.streams
    assert network.regroup(2).graph is network.graph
    plain = trace(Lambda(pooled), SHAPE, streams=False)
    assert sites(plain) == ["second"]  # no stream, nothing to leave whole


def test_mobilenet_has_its_pointwise_convolutions_alone() -> None:
    backbone = models.mobilenet_v2(weights=None)
    network = trace(backbone, (3, 32, 32))
    convs = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    assert sites(network) == [name for name, conv in convs.items() if conv.groups == 1][1:]
    assert len(network.sites) == 34


def test_a_projection_before_a_block_is_no_shortcut() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.project = nn.Conv2d(8, 8, 1)
            self.inside = nn.Conv2d(8, 8, 3, padding=1)
            self.linear = nn.Linear(8, 10)

        def forward(self, images: Tensor) -> Tensor:
            x = self.project(self.first(images))
            return self.linear(pooled(x + self.inside(x)))

    assert sites(trace(Net(), SHAPE)) == ["project", "inside"]


def test_a_convolution_that_gives_the_classes_is_no_site() -> None:
    backbone = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 10, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    assert sites(trace(backbone, SHAPE)) == ["2"]


def test_modes_and_statistics_are_left_alone() -> None:
    backbone = models.resnet18(weights=None).train()
    backbone.layer1.eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    trace(backbone, (3, 32, 32))
    assert backbone.training
    assert not backbone.layer1.training
    assert all(torch.equal(before[name], t) for name, t in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Lambda(branches_on_data), r"torch.fx cannot follow Lambda at `.*sum\(\) > 0"),
        (Lambda(lambda x: pooled(x).view(3, 7)), r"Node 'view' .* cannot run"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10)), "No site found"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), r"logits of shape \(B, K\)"),
        (nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.Flatten()), r"\(it has none\)"),
    ],
)
def test_what_cannot_be_traced_is_refused_by_name(backbone: nn.Module, message: str) -> None:
    with pytest.raises(TracingError, match=message):
        trace(backbone, SHAPE)


def test_a_backbone_with_a_default_argument_keeps_it() -> None:
    class Net(Lambda):
        def forward(self, images: Tensor, doubled: bool = True) -> Tensor:
            return super().forward(images * 2 if doubled else images)

    assert sites(trace(Net(pooled), SHAPE)) == ["second"]


def test_two_inputs_are_refused() -> None:
    class Net(Lambda):
        def forward(self, images: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(images * mask)

    with pytest.raises(TracingError, match=r"one argument, its images, but got \['images', 'mask'"):
        trace(Net(pooled), SHAPE)


def test_a_backbone_without_numbers_is_traced() -> None:
    with torch.device("meta"):
        backbone = models.resnet18(weights=None)
    assert len(trace(backbone, (3, 32, 32)).sites) == 16

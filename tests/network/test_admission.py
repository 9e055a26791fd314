"""Hooks, masks and parametrizations are refused with a way out; shared parameters stay whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, remove_weight_norm, weight_norm

from runtime_pruning.errors import TracingError
from runtime_pruning.files import save_tensors
from runtime_pruning.network import order_channels, trace
from runtime_pruning.testing.network import close

SHAPE = (3, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.c3 = nn.Conv2d(8, 8, 3, padding=1)
        self.c4 = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.c4(self.c3(self.c2(self.c1(images)).relu()).relu())
        return self.linear(x.mean((2, 3)))


def doubled(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n.c2.register_forward_hook(doubled), r"Conv2d 'c2' has a hook.*\(forward_hooks"),
        (
            lambda n: n.c2.register_forward_pre_hook(lambda module, inputs: inputs),
            r"'c2' has a hook, .*remove it, or write what it does into a forward",
        ),
        (lambda n: n.register_forward_hook(doubled), r"Net '' has a hook"),
        (lambda n: prune.l1_unstructured(n.c2, "weight", 0.5), r"prune.remove\(module, name\)"),
        (
            lambda n: parametrizations.weight_norm(n.c2),
            r"'c2' has a parametrization of weight.*remove_parametrizations\(module, name\)",
        ),
        (lambda n: parametrizations.spectral_norm(n.linear), r"'linear' has a parametrization"),
    ],
)
def test_what_computes_outside_of_a_forward_is_refused(
    change: Callable[[Net], object], message: str
) -> None:
    net = Net()
    change(net)
    with pytest.raises(TracingError, match=message):
        trace(net, SHAPE)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_old_weight_norm_is_refused_and_its_way_out_works() -> None:
    net = Net()
    weight_norm(net.c2)
    with pytest.raises(TracingError, match=r"hook.*WeightNorm: .*remove_weight_norm\(module\)"):
        trace(net, SHAPE)
    remove_weight_norm(net.c2)
    trace(net, SHAPE)


def test_a_removed_hook_is_none() -> None:
    net = Net()
    net.c2.register_forward_hook(doubled).remove()
    prune.l1_unstructured(net.c3, "weight", 0.5)
    prune.remove(net.c3, "weight")
    assert len(trace(net, SHAPE).sites) == 3


@torch.no_grad()
def test_a_shared_parameter_stays_whole_and_in_order(tmp_path: Path) -> None:
    net = Net()
    net.c3.weight = net.c2.weight
    network = trace(net, SHAPE).eval()
    assert [site.name for site in network.sites] == ["c4"]
    told = {no.name: no.reason for no in network.graph.no_sites}
    assert told["c2"] == "its parameters are also those of 'c3'"
    images_BCHW = torch.rand(2, *SHAPE)
    before_BK = network.backbone(images_BCHW)
    assert order_channels(network) == (0,)
    close(network.backbone(images_BCHW), before_BK)
    save_tensors(network.backbone.state_dict(), tmp_path / "weights.safetensors")
    other = trace(Net(), SHAPE).eval()
    other.load_backbone(load_file(tmp_path / "weights.safetensors"))
    close(other.backbone(images_BCHW), before_BK)


@torch.no_grad()
def test_a_module_called_twice_stays_whole_and_in_order() -> None:
    class Twice(Net):
        def forward(self, images: Tensor) -> Tensor:
            x = self.c2(self.c2(self.c1(images)).relu())
            return self.linear(self.c4(self.c3(x)).mean((2, 3)))

    network = trace(Twice(), SHAPE).eval()
    assert [site.name for site in network.sites] == ["c3", "c4"]
    assert "its parameters are used twice" in str(network.graph.no_sites)
    images_BCHW = torch.rand(2, *SHAPE)
    before_BK = network.backbone(images_BCHW)
    order_channels(network)
    close(network.backbone(images_BCHW), before_BK)


@torch.no_grad()
def test_a_shared_batch_norm_keeps_what_goes_through_it_whole() -> None:
    class Normed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

        def forward(self, images: Tensor) -> Tensor:
            x = self.norm(self.c3(self.norm(self.c2(self.c1(images))).relu()))
            return self.linear(self.c4(x).mean((2, 3)))

    network = trace(Normed(), SHAPE).eval()
    assert [site.name for site in network.sites] == ["c4"]
    images_BCHW = torch.rand(2, *SHAPE)
    before_BK = network.backbone(images_BCHW)
    order_channels(network)
    close(network.backbone(images_BCHW), before_BK)

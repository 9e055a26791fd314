"""Networks that compute otherwise have other structures, whatever their weights and names are."""

import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning import backbones
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.structure import structure, structure_key

Forward = Callable[["Small", Tensor], Tensor]


class Small(nn.Module):
    """Two convolutions and a linear layer; how they are called is each test's."""

    def __init__(self, forward: Forward, **settings: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, padding=1, **settings)
        self.head = nn.Linear(8, 3)
        self.scale = torch.tensor(2.0)
        self.own = forward

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.own(self, images_BCHW)


def plain(net: Small, images_BCHW: Tensor) -> Tensor:
    hidden = functional.relu(net.second(functional.relu(net.first(images_BCHW))))
    return net.head(functional.adaptive_avg_pool2d(hidden, 1).flatten(1))


def renamed(net: Small, x: Tensor) -> Tensor:
    first = functional.relu(net.first(x))
    second = functional.relu(net.second(first))
    pooled = functional.adaptive_avg_pool2d(second, 1)
    return net.head(pooled.flatten(1))


def other_activation(net: Small, images_BCHW: Tensor) -> Tensor:
    hidden = functional.relu(net.second(functional.elu(net.first(images_BCHW))))
    return net.head(functional.adaptive_avg_pool2d(hidden, 1).flatten(1))


def other_argument(net: Small, images_BCHW: Tensor) -> Tensor:
    hidden = functional.relu(net.second(functional.elu(net.first(images_BCHW), alpha=0.5)))
    return net.head(functional.adaptive_avg_pool2d(hidden, 1).flatten(1))


def scaled(net: Small, images_BCHW: Tensor) -> Tensor:
    return plain(net, images_BCHW * net.scale)


def scaled_by_half(net: Small, images_BCHW: Tensor) -> Tensor:
    return plain(net, images_BCHW * 0.5)


def traced(forward: Forward, **settings: int) -> PrunableNetwork:
    return trace(Small(forward, **settings), (1, 8, 8), groups=2, align=2)


def test_each_edit_of_a_forward_gives_another_structure() -> None:
    edits = (plain, other_activation, other_argument, scaled, scaled_by_half)
    keys = {structure_key(traced(edit)) for edit in edits}
    assert len(keys) == len(edits)


def test_names_of_variables_and_weights_give_the_same() -> None:
    assert structure(traced(plain)) == structure(traced(renamed))
    network = traced(plain)
    before = structure_key(network)
    with torch.no_grad():
        network.backbone.first.weight.mul_(3)
    assert structure_key(network) == structure_key(network.regroup(4, align=2)) == before


def test_settings_of_modules_and_constants_count() -> None:
    assert structure_key(traced(plain, dilation=2)) != structure_key(traced(plain))
    network = traced(scaled)
    before = structure_key(network)
    network.backbone.scale.mul_(2)
    assert structure_key(network) != before


def test_another_process_says_the_same() -> None:
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=(3, 32, 32))
    expected = structure_key(trace(backbone, (3, 32, 32), groups=2, align=2))
    program = (
        "from runtime_pruning import backbones\n"
        "from runtime_pruning.network import trace\n"
        "from runtime_pruning.network.structure import structure_key\n"
        "backbone = backbones.create('resnet20-cifar', num_classes=10, image_shape=(3, 32, 32))\n"
        "print(structure_key(trace(backbone, (3, 32, 32), groups=2, align=2)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr

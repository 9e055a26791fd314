"""Networks, images, plans and a policy that tests of the executor share."""

import pytest
import torch
import torchvision
from torch import Tensor

from runtime_pruning import backbones
from runtime_pruning.executor.deployed import DeployedMode, DeployedNetwork
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.testing.network import shake

SHAPES = {
    "digits-cnn": (1, 8, 8),
    "mcifarnet": (3, 16, 16),
    "resnet20-cifar": (3, 16, 16),
    "resnet18": (3, 32, 32),
    "vgg11_bn": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
}


def traced(name: str, shape: tuple[int, int, int]) -> PrunableNetwork:
    """Return a network with batch norm and biases that are not neutral."""
    torch.manual_seed(0)
    if name in backbones.names():
        backbone = backbones.create(name, num_classes=10, image_shape=shape)
    else:
        backbone = torchvision.models.get_model(name, num_classes=10)
    images_BCHW = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    return trace(shake(backbone, images_BCHW, seed=1), shape).eval()


def images(network: PrunableNetwork, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, *network.image_shape, generator=generator)


def plans(network: PrunableNetwork, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (batch, len(network.sites))
    return torch.randint(1, network.groups + 1, size, generator=generator)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def known(deployed: DeployedNetwork, mode: DeployedMode) -> DeployedMode:
    """Return the mode; skip the test where it cannot run here."""
    if mode not in ("auto", *deployed.modes):
        pytest.skip(f"{mode} cannot run this network on this machine")
    return mode


class MeanPolicy:
    """Looks at the features: more groups where they are larger on average."""

    name = "mean"
    macs_per_image = 7

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.seen: list[Tensor] = []

    def start(self, batch: int) -> "MeanPolicy":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        self.seen.append(features_BF.clone())
        ranks_B = (features_BF.double().mean(1) * 1e3).long()
        return (ranks_B + site) % self.groups + 1

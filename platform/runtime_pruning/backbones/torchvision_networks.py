"""torchvision's networks on images in [0, 1], under torchvision's own names of the weights.

Apart from the registered factories, since importing torchvision takes seconds, which processes
that run other backbones need not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision import models

from runtime_pruning.backbones.layers import Normalise
from runtime_pruning.errors import ConfigError

# What torchvision's weights were trained with, in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class _Normalised(nn.Module):
    """Puts a `Normalise` before a torchvision network without renaming its weights."""

    weights_file: str
    published_name: str
    normalise: Normalise

    def put_first(self, name: str) -> None:
        """Add the normaliser as the first submodule, and say where published weights are.

        Args:
            name: torchvision's name of the network.
        """
        self.normalise = Normalise(PIXEL_MEAN, PIXEL_STD)
        self._modules = {"normalise": self._modules.pop("normalise"), **self._modules}
        self.published_name = name
        self.weights_file = f"{name}.safetensors"

    @property
    def other_weights_files(self) -> Sequence[str]:
        """Names that torchvision gives to the same weights."""
        return [Path(self._published().url).name]

    def download_weights(self) -> dict[str, Tensor]:
        """Return torchvision's weights from its cache, or downloaded with a progress bar."""
        state: dict[str, Tensor] = self._published().get_state_dict(progress=True, check_hash=True)
        return state

    def _published(self) -> Any:
        """Return the first weights that torchvision published: plain training, no tricks."""
        return models.get_model_weights(self.published_name)["IMAGENET1K_V1"]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK`` for images in [0, 1]."""
        result: Tensor = super().forward(self.normalise(images_BCHW))
        return result


class NormalisedVgg(_Normalised, models.VGG):  # type: ignore[misc]
    """torchvision's VGG on images in [0, 1]."""


class NormalisedResNet(_Normalised, models.ResNet):  # type: ignore[misc]
    """torchvision's ResNet on images in [0, 1]."""


class NormalisedMobileNetV2(_Normalised, models.MobileNetV2):  # type: ignore[misc]
    """torchvision's MobileNetV2 on images in [0, 1]."""


def vgg(name: str, *, batch_norm: bool, num_classes: int, channels: int) -> nn.Module:
    """Return a VGG of 16 layers."""
    layers = models.vgg.make_layers(models.vgg.cfgs["D"], batch_norm=batch_norm)
    return _finish(NormalisedVgg(layers, num_classes=num_classes), name, channels)


def resnet(
    name: str, depths: list[int], *, bottleneck: bool, num_classes: int, channels: int
) -> nn.Module:
    """Return a ResNet of so many blocks in each of its four stages."""
    block = models.resnet.Bottleneck if bottleneck else models.resnet.BasicBlock
    return _finish(NormalisedResNet(block, depths, num_classes=num_classes), name, channels)


def mobilenet(name: str, *, num_classes: int, channels: int) -> nn.Module:
    """Return a MobileNetV2."""
    return _finish(NormalisedMobileNetV2(num_classes=num_classes), name, channels)


def _finish(network: _Normalised, name: str, channels: int) -> nn.Module:
    """Return the network with its normaliser; torchvision's networks know 3 colours only."""
    if channels != len(PIXEL_MEAN):
        raise ConfigError(f"The backbone {name!r} takes images of 3 channels, but got {channels}.")
    network.put_first(name)
    return network

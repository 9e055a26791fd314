"""VGG-16, ResNets and MobileNetV2 as torchvision builds them, pixel normalisation included.

The names of the weights are torchvision's, so that its published files load strictly: looked for
as ``<name>.safetensors`` or under torchvision's own file name, else downloaded by torchvision.
Images should be ImageNet-like; torchvision's networks take any size from about 32x32 on.
Sources: Simonyan and Zisserman, ICLR 2015 (VGG); He et al., CVPR 2016 (ResNet); Sandler et al.,
CVPR 2018 (MobileNetV2).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision import models

from runtime_pruning.backbones.catalogue import register
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
        return super().forward(self.normalise(images_BCHW))


class NormalisedVgg(_Normalised, models.VGG):
    """torchvision's VGG on images in [0, 1]."""


class NormalisedResNet(_Normalised, models.ResNet):
    """torchvision's ResNet on images in [0, 1]."""


class NormalisedMobileNetV2(_Normalised, models.MobileNetV2):
    """torchvision's MobileNetV2 on images in [0, 1]."""


def _vgg(name: str, *, batch_norm: bool, num_classes: int, channels: int) -> nn.Module:
    layers = models.vgg.make_layers(models.vgg.cfgs["D"], batch_norm=batch_norm)
    return _finish(NormalisedVgg(layers, num_classes=num_classes), name, channels)


def _resnet(name: str, block: Any, depths: list[int], num_classes: int, channels: int) -> nn.Module:
    return _finish(NormalisedResNet(block, depths, num_classes=num_classes), name, channels)


def _finish(network: _Normalised, name: str, channels: int) -> nn.Module:
    """Return the network with its normaliser; torchvision's networks know 3 colours only."""
    if channels != len(PIXEL_MEAN):
        raise ConfigError(f"The backbone {name!r} takes images of 3 channels, but got {channels}.")
    network.put_first(name)
    return network


@register("vgg16")
def vgg16(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return VGG-16: 138 M parameters, 15.5 G MACs on 224x224 pixels."""
    return _vgg("vgg16", batch_norm=False, num_classes=num_classes, channels=image_shape[0])


@register("vgg16_bn")
def vgg16_bn(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return VGG-16 with batch norm after each convolution."""
    return _vgg("vgg16_bn", batch_norm=True, num_classes=num_classes, channels=image_shape[0])


@register("resnet18")
def resnet18(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-18: 11.7 M parameters, 1.8 G MACs on 224x224 pixels."""
    block = models.resnet.BasicBlock
    return _resnet("resnet18", block, [2, 2, 2, 2], num_classes, image_shape[0])


@register("resnet34")
def resnet34(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-34: 21.8 M parameters, 3.7 G MACs on 224x224 pixels."""
    block = models.resnet.BasicBlock
    return _resnet("resnet34", block, [3, 4, 6, 3], num_classes, image_shape[0])


@register("resnet50")
def resnet50(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-50: bottlenecks, 25.6 M parameters, 4.1 G MACs on 224x224 pixels."""
    block = models.resnet.Bottleneck
    return _resnet("resnet50", block, [3, 4, 6, 3], num_classes, image_shape[0])


@register("mobilenet_v2")
def mobilenet_v2(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return MobileNetV2: depthwise convolutions, 3.5 M parameters, 0.3 G MACs on 224x224."""
    network = NormalisedMobileNetV2(num_classes=num_classes)
    return _finish(network, "mobilenet_v2", image_shape[0])

"""VGG-16, ResNets and MobileNetV2 as torchvision builds them, pixel normalisation included.

The names of the weights are torchvision's, so that its published files load strictly: looked for
as ``<name>.safetensors`` or under torchvision's own file name, else downloaded by torchvision.
Images should be ImageNet-like; torchvision's networks take any size from about 32x32 on.
Sources: Simonyan and Zisserman, ICLR 2015 (VGG); He et al., CVPR 2016 (ResNet); Sandler et al.,
CVPR 2018 (MobileNetV2).
"""

from torch import nn

from runtime_pruning.backbones.catalogue import register


def _vgg(name: str, *, batch_norm: bool, num_classes: int, channels: int) -> nn.Module:
    from runtime_pruning.backbones import torchvision_networks  # takes seconds to import

    return torchvision_networks.vgg(
        name, batch_norm=batch_norm, num_classes=num_classes, channels=channels
    )


def _resnet(
    name: str, depths: list[int], *, bottleneck: bool = False, num_classes: int, channels: int
) -> nn.Module:
    from runtime_pruning.backbones import torchvision_networks

    return torchvision_networks.resnet(
        name, depths, bottleneck=bottleneck, num_classes=num_classes, channels=channels
    )


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
    return _resnet("resnet18", [2, 2, 2, 2], num_classes=num_classes, channels=image_shape[0])


@register("resnet34")
def resnet34(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-34: 21.8 M parameters, 3.7 G MACs on 224x224 pixels."""
    return _resnet("resnet34", [3, 4, 6, 3], num_classes=num_classes, channels=image_shape[0])


@register("resnet50")
def resnet50(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-50: bottlenecks, 25.6 M parameters, 4.1 G MACs on 224x224 pixels."""
    return _resnet(
        "resnet50", [3, 4, 6, 3], bottleneck=True, num_classes=num_classes, channels=image_shape[0]
    )


@register("mobilenet_v2")
def mobilenet_v2(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return MobileNetV2: depthwise convolutions, 3.5 M parameters, 0.3 G MACs on 224x224."""
    from runtime_pruning.backbones import torchvision_networks

    return torchvision_networks.mobilenet(
        "mobilenet_v2", num_classes=num_classes, channels=image_shape[0]
    )

"""CIFAR ResNets of depth 6n + 2 with option-A shortcuts: no parameter outside the main path.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
Published weights (names as here): Yerlan Idelbayev, akamaster/pytorch_resnet_cifar10. They were
trained on all 50,000 training images, so a split held out of these is not unseen to them.
"""

from torch import Tensor, nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise, SubsampleShortcut

# What the published weights were trained with: ImageNet's constants, in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the stream.

    Args:
        in_planes: channels of the stream before.
        planes: channels of the stream after; where they grow, the resolution halves.
    """

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        stride = 1 if in_planes == planes else 2
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 else SubsampleShortcut(in_planes, planes)
        self.relu2 = nn.ReLU()

    def forward(self, stream_BCHW: Tensor) -> Tensor:
        """Return the stream after this block, shape (B, planes, H / stride, W / stride)."""
        inner_BCHW = self.relu1(self.bn1(self.conv1(stream_BCHW)))
        branch_BCHW = self.bn2(self.conv2(inner_BCHW))
        result: Tensor = self.relu2(branch_BCHW + self.shortcut(stream_BCHW))
        return result


class CifarResNet(nn.Module):
    """A stem of 16 channels and three layers of 16, 32 and 64.

    Args:
        blocks: residual blocks per layer; the depth is ``6 * blocks + 2``.
        num_classes: length of the logits.
        image_channels: channels of an image; pixels are normalised as the weights expect for 3.
    """

    def __init__(self, blocks: int, num_classes: int, image_channels: int = 3) -> None:
        super().__init__()
        self.weights_file = f"cifar10-resnet{6 * blocks + 2}.safetensors"
        known = image_channels == len(PIXEL_MEAN)
        self.normalise = Normalise(
            PIXEL_MEAN if known else [0.5] * image_channels,
            PIXEL_STD if known else [0.25] * image_channels,
        )
        self.conv1 = nn.Conv2d(image_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.layer1 = _layer(16, 16, blocks)
        self.layer2 = _layer(16, 32, blocks)
        self.layer3 = _layer(32, 64, blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK`` for images in [0, 1]."""
        stream_BCHW = self.relu1(self.bn1(self.conv1(self.normalise(images_BCHW))))
        stream_BCHW = self.layer3(self.layer2(self.layer1(stream_BCHW)))
        result: Tensor = self.linear(self.flatten(self.average(stream_BCHW)))
        return result


def _layer(in_planes: int, planes: int, blocks: int) -> nn.Sequential:
    """Return ``blocks`` residual blocks, of which the first may widen the stream."""
    widths = [in_planes] + [planes] * blocks
    return nn.Sequential(*(BasicBlock(widths[i], planes) for i in range(blocks)))


@register("resnet20-cifar")
def resnet20_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-20: 0.27 M parameters, 40.55 M MACs on 32x32 pixels."""
    return CifarResNet(3, num_classes, image_shape[0])


@register("resnet32-cifar")
def resnet32_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-32: 0.46 M parameters, 68.86 M MACs on 32x32 pixels."""
    return CifarResNet(5, num_classes, image_shape[0])


@register("resnet56-cifar")
def resnet56_cifar(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return ResNet-56: 0.85 M parameters, 125.49 M MACs on 32x32 pixels."""
    return CifarResNet(9, num_classes, image_shape[0])

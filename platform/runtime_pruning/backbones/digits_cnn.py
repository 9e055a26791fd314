"""A small four-convolution network: learns scikit-learn's digits in seconds on one core."""

from collections import OrderedDict

from torch import nn

from runtime_pruning.backbones.catalogue import register
from runtime_pruning.backbones.layers import Normalise, conv_stack

PIXEL_MEAN = 0.305  # of the digits, in [0, 1]
PIXEL_STD = 0.376
WIDTHS = (8, 16, 16, 32)


@register("digits-cnn")
def digits_cnn(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return conv 8, conv 16, pool, conv 16, conv 32, pool, global average, linear.

    All convolutions are 3x3 with padding 1, followed by batch norm and ReLU. Images must be at
    least 4x4 pixels, for two poolings. So narrow that widths matter: at a quarter of them some
    digits are lost, which leaves a policy something to decide.
    """
    channels = image_shape[0]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalise"] = Normalise([PIXEL_MEAN] * channels, [PIXEL_STD] * channels)
    layers.update(conv_stack(channels, WIDTHS, pools=(2, 4)))
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(WIDTHS[-1], num_classes)
    return nn.Sequential(layers)

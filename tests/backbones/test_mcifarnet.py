"""M-CifarNet as it was published: size worked out by hand, widths, strides."""

from collections.abc import Callable

from torch import nn

from runtime_pruning import backbones

CIFAR = (3, 32, 32)


def create(name: str, image_shape: tuple[int, int, int] = CIFAR) -> nn.Module:
    return backbones.create(name, num_classes=10, image_shape=image_shape)


Count = Callable[[str, tuple[int, int, int]], tuple[int, int]]


def test_mcifarnet_has_the_published_size(executed_macs: Count) -> None:
    # Weights and MACs of each 3x3 convolution (in, out, H = W of the output):
    #   3, 64, 30:      1,728 *   900 =  1,555,200    no padding: 32 - 2 = 30
    #  64, 64, 30:     36,864 *   900 = 33,177,600
    #  64, 128, 15:    73,728 *   225 = 16,588,800    stride 2
    # 128, 128, 15:   147,456 *   225 = 33,177,600    twice
    # 128, 192, 8:    221,184 *    64 = 14,155,776    stride 2: ceil(15 / 2)
    # 192, 192, 8:    331,776 *    64 = 21,233,664    twice
    backbone = create("mcifarnet")
    convs = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert sum(conv.weight.numel() for conv in convs) == 1_291_968
    assert executed_macs("mcifarnet", CIFAR) == (174_299_904, 1_920)


def test_mcifarnet_has_the_published_widths_strides_and_padding() -> None:
    convs = [module for module in create("mcifarnet").modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 64, 128, 128, 128, 192, 192, 192]
    assert [conv.stride[0] for conv in convs] == [1, 1, 2, 1, 1, 2, 1, 1]
    assert [conv.padding[0] for conv in convs] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert {conv.kernel_size for conv in convs} == {(3, 3)}

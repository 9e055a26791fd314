"""Weights as the compiled library reads them.

Dimensions: C and D channels.
"""

import torch
from torch import Tensor

from runtime_pruning.executor.native.abi import LayerSlice
from runtime_pruning.executor.native.memory import on_huge_pages

BLOCK = 16  # outputs that lie together in packed weights


class Packed:
    """Weights of a convolution as the functions read them; any number of first outputs can run.

    Args:
        weight: shape (D, C, h, w), in the type of the features.
        bias: shape (D,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        outputs, inputs, height, width = weight.shape
        step = 4 // weight.dtype.itemsize
        blocks, whole = -(-outputs // BLOCK), -(-inputs // step) * step
        padded = weight.new_zeros(blocks * BLOCK, whole, height, width)
        padded[:outputs, :inputs] = weight
        split = padded.view(blocks, BLOCK, whole // step, step, height, width)
        self.weight = on_huge_pages(split.permute(0, 4, 5, 2, 1, 3).contiguous())
        self.bias = torch.zeros(blocks * BLOCK)
        if bias is not None:
            self.bias[:outputs] = bias.float()
        tap = whole * BLOCK
        self._strides = (tap, height * width * tap)

    def row(self, inputs: int, outputs: int) -> LayerSlice:
        """Return the weights of the first inputs and outputs; they live as long as this."""
        addresses = self.weight.data_ptr(), self.bias.data_ptr()
        return LayerSlice(*addresses, inputs, outputs, *self._strides)


def packed_linear(weight: Tensor, bias: Tensor | None) -> Packed:
    """Return the weights of a linear layer, shape (D, C), packed as those of a 1x1 convolution."""
    return Packed(weight[:, :, None, None], bias)


class PackedDepthwise:
    """Weights of a depthwise convolution, likewise.

    Args:
        weight: shape (C, 1, h, w), in the type of the features.
        bias: shape (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        channels, _, height, width = weight.shape
        self._room = -(-channels // BLOCK) * BLOCK
        self.weight = weight.new_zeros(height, width, self._room)
        self.weight[..., :channels] = weight[:, 0].permute(1, 2, 0)
        self.bias = torch.zeros(self._room)
        if bias is not None:
            self.bias[:channels] = bias.float()

    def row(self, inputs: int, outputs: int) -> LayerSlice:
        """Return the weights of the first channels; they live as long as this."""
        assert inputs == outputs
        addresses = self.weight.data_ptr(), self.bias.data_ptr()
        return LayerSlice(*addresses, inputs, outputs, self._room, 0)

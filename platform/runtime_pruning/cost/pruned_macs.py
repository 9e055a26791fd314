"""MACs of a backbone after surgery, from the widths alone: before a channel is removed.

Widths may be tensors with gradients, so that gates can be trained on what they cost.

Dimensions: G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from runtime_pruning.backbones.layers import SubsampleShortcut
from runtime_pruning.errors import ConfigError
from runtime_pruning.network.surgery import PrunableGroup, prunable_groups

Width = TypeVar("Width", int, float, Tensor)


@dataclass(frozen=True)
class _Layer:
    """What a convolution or linear layer costs.

    Attributes:
        out: index of the group that its outputs belong to; None where they are fixed.
        channels: its outputs at full width.
        inputs: it reads at full width, per output.
        reads: groups that it reads, and how many inputs a channel of each makes up.
        macs: per output channel and input.
        free_whole: whether it costs nothing while none of its channels is removed.
    """

    out: int | None
    channels: int
    inputs: int
    reads: tuple[tuple[int, int], ...]
    macs: int
    free_whole: bool = False


class PrunedMacs:
    """What a backbone costs at any widths of its groups.

    Args:
        backbone: the dense one.
        image_shape: (C, H, W).

    Attributes:
        groups: the channels that can be removed; see `prunable_groups`.
        dense: MACs on one image with all channels.

    Raises:
        TracingError: its dependencies cannot be found.
    """

    def __init__(self, backbone: nn.Module, image_shape: tuple[int, int, int]) -> None:
        self.groups = prunable_groups(backbone, image_shape)
        self._layers = _layers(backbone, image_shape, self.groups)
        self.dense = int(self([group.channels for group in self.groups]))

    def __call__(self, widths_G: Sequence[Width]) -> Width:
        """Return MACs on one image.

        Args:
            widths_G: channels kept of each group; numbers, or tensors of one shape.

        Raises:
            ConfigError: not one width per group.
        """
        if len(widths_G) != len(self.groups):
            raise ConfigError(
                f"A width for each of {len(self.groups)} groups is needed, but got {len(widths_G)}."
            )
        gone_G = [
            group.channels - width for group, width in zip(self.groups, widths_G, strict=True)
        ]
        total = widths_G[0] * 0
        for layer in self._layers:
            out = layer.channels if layer.out is None else widths_G[layer.out]
            inputs = layer.inputs - sum(gone_G[group] * each for group, each in layer.reads)
            macs = out * inputs * layer.macs
            total = total + (macs * _lost(layer, gone_G) if layer.free_whole else macs)
        return total


def _layers(
    backbone: nn.Module, image_shape: tuple[int, int, int], groups: Sequence[PrunableGroup]
) -> list[_Layer]:
    """Return all layers that cost MACs."""
    written = {name: index for index, group in enumerate(groups) for name in group.coupled}
    found = []
    for name, calls in positions(backbone, image_shape).items():
        module = backbone.get_submodule(name)
        free = isinstance(module, SubsampleShortcut)
        out, inputs, taps = _sizes(module)
        reads = tuple(
            (index, each)
            for index, group in enumerate(groups)
            for reader, each in zip(group.readers, group.inputs, strict=True)
            if reader == name
        )
        found.append(_Layer(written.get(name), out, inputs, reads, taps * calls, free))
    return found


def _sizes(module: nn.Module) -> tuple[int, int, int]:
    """Return outputs, inputs of one output, and taps; a shortcut becomes a convolution of one."""
    if isinstance(module, SubsampleShortcut):
        return module.planes, module.in_planes, 1
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight.shape[0], module.weight.shape[1], module.weight[0, 0].numel()


def _lost(layer: _Layer, gone_G: Sequence[Any]) -> Any:
    """Whether any channel that a layer reads or writes is removed; elementwise, as widths are."""
    own = [group for group, _ in layer.reads] + ([] if layer.out is None else [layer.out])
    return sum(gone_G[group] > 0 for group in own) > 0


def positions(backbone: nn.Module, image_shape: tuple[int, int, int]) -> Mapping[str, int]:
    """Return at how many places each layer is computed for one image, shortcuts among them."""
    found: dict[str, int] = {}
    names = {module: name for name, module in backbone.named_modules()}

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        name = names[module]
        places = output.numel() // _sizes(module)[0]
        found[name] = found.get(name, 0) + places

    kinds = nn.Conv2d | nn.Linear | SubsampleShortcut
    layers = [module for module in names if isinstance(module, kinds)]
    hooks = [module.register_forward_hook(note) for module in layers]
    modes = {module: module.training for module in backbone.modules()}
    try:
        device = next(backbone.parameters()).device
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, *image_shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return found

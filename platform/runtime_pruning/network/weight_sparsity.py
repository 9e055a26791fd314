"""Single weights set to zero: unstructured sparsity, which saves parameters and no time here."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from runtime_pruning.errors import ConfigError, did_you_mean

# Which weights of a layer count: bool, of the weight's shape, by the layer's name.
Masks: TypeAlias = dict[str, Tensor]


def magnitude_masks(backbone: nn.Module, share_kept: Mapping[str, float]) -> Masks:
    """Return masks that keep the largest weights of each layer.

    Args:
        backbone: is not changed.
        share_kept: in (0, 1], by the name of a convolution or linear layer. Rounded to whole
            weights, at least one; of equal weights the first are kept.

    Raises:
        ConfigError: a share outside its range, or a layer without weights.
    """
    layers = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    masks: Masks = {}
    for name, share in share_kept.items():
        if name not in layers:
            raise ConfigError(
                f"A mask needs a convolution or linear layer, but got {name!r}."
                f"{did_you_mean(name, layers)}"
            )
        if not 0 < share <= 1:
            raise ConfigError(f"`0 < share kept <= 1` must hold at {name!r}, but got {share}.")
        weight = layers[name].weight.detach()
        count = max(1, round(share * weight.numel()))
        order = weight.abs().flatten().sort(descending=True, stable=True).indices
        mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
        mask[order[:count]] = True
        masks[name] = mask.view_as(weight)
    return masks


@torch.no_grad()
def apply_masks(backbone: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that do not count to zero, in place."""
    for name, mask in masks.items():
        weight = backbone.get_parameter(f"{name}.weight")
        weight.mul_(mask.to(weight.device))


def nonzero_parameters(backbone: nn.Module) -> int:
    """Return how many parameters are not zero."""
    return sum(int(parameter.count_nonzero()) for parameter in backbone.parameters())

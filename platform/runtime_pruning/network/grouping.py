"""Which channels run first: group bounds, and the order of channels by importance.

Groups are nested: "3 groups" means the first three blocks of channels, a contiguous slice. So
channels are ordered once, most important first, by a permutation that leaves the function as it is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.graph import Unit

if TYPE_CHECKING:
    from runtime_pruning.network.prunable import PrunableNetwork


def fitting_align(channels: int, groups: int, align: int) -> int:
    """Return the largest of align, align / 2, ... 1 of which ``groups`` multiples fit."""
    while align > 1 and channels // align < groups:
        align //= 2
    return align


def group_bounds(channels: int, groups: int, align: int) -> tuple[int, ...]:
    """Return how many channels run with 0, 1, ... ``groups`` groups.

    Bounds are multiples of the alignment, or of the largest half, quarter, ... of it that fits; the
    last is ``channels``. They rise strictly and are as even as that allows, larger first.

    Raises:
        ConfigError: a number below one, or more groups than channels.
    """
    if min(channels, groups, align) < 1:
        raise ConfigError(
            "`channels`, `groups` and `align` must each be >= 1, "
            f"but got (channels={channels}, groups={groups}, align={align})."
        )
    if groups > channels:
        raise ConfigError(
            f"`groups <= channels` must hold, but got (groups={groups}, channels={channels})."
        )
    align = fitting_align(channels, groups, align)
    blocks = channels // align
    inner = [align * -(-blocks * group // groups) for group in range(groups)]
    return (*inner, channels)


def channel_importance(network: "PrunableNetwork") -> list[Tensor]:
    """Return ``importance_C`` per site: L1 norm of a channel's weights times its batch-norm scale.

    Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1 norm); Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (scale).
    """
    return [_importance(network, unit) for unit in network.units if unit.site is not None]


def order_channels(
    network: "PrunableNetwork", importance: Sequence[Tensor] | None = None
) -> tuple[int, ...]:
    """Put each site's most important channels first, in place; the function stays the same.

    Channels that end in a residual add share their order with the stream, and keep it.

    Args:
        network: its weights are permuted.
        importance: ``importance_C`` per site, larger first; by default `channel_importance`.

    Returns:
        The indices of the sites that were ordered.
    """
    scores = channel_importance(network) if importance is None else importance
    bound = {
        site
        for unit in network.units
        if unit.kind == "add"
        for value in unit.inputs
        for site in value.width.sites
    }
    free = tuple(site.index for site in network.sites if site.index not in bound)
    for site in free:
        order_C = torch.argsort(scores[site], descending=True, stable=True)
        for unit in network.units:
            _permute(network, unit, site, order_C)
    return free


def _importance(network: "PrunableNetwork", unit: Unit) -> Tensor:
    """Return the importance of one site's channels."""
    importance_C = network.head_module(unit).weight.detach().abs().flatten(1).sum(1)
    for step in unit.followers:
        module = network.module(step.target) if step.op == "module" else None
        if isinstance(module, NORMS) and module.affine:
            return importance_C * module.weight.detach().abs()
    return importance_C


@torch.no_grad()
def _permute(network: "PrunableNetwork", unit: Unit, site: int, order_C: Tensor) -> None:
    """Reorder whatever a unit holds of a site's channels: rows, columns, per-channel vectors."""
    own = frozenset({site})
    if unit.kind in ("convolution", "linear") and unit.source.width.sites == own:
        weight = network.head_module(unit).weight
        weight.copy_(weight[:, _elements(order_C, unit.source.factor)])
    if unit.output.width.sites != own:
        return
    if unit.kind in ("convolution", "depthwise"):
        _permute_rows(network.head_module(unit), order_C)
    for step in unit.followers:
        if step.op == "module":
            _permute_rows(network.module(step.target), order_C)


def _permute_rows(module: nn.Module, order_C: Tensor) -> None:
    """Reorder dimension 0 of all parameters and buffers that have a row per channel."""
    channels = order_C.shape[0]
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim and tensor.shape[0] % channels == 0:
            tensor.copy_(tensor[_elements(order_C, tensor.shape[0] // channels)])


def _elements(order_C: Tensor, factor: int) -> Tensor:
    """Return the order of the elements when each channel occupies ``factor`` of them."""
    return (order_C[:, None] * factor + torch.arange(factor, device=order_C.device)).flatten()

"""Which channels run first: group bounds, and the order of channels by importance.

Groups are nested: "3 groups" means the first three blocks of channels, a contiguous slice. So
channels are ordered once, most important first, by a permutation that leaves the function as it is.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.channel_coupling import coupled_channels
from runtime_pruning.network.graph import Unit
from runtime_pruning.network.traced import TracedNetwork


def channel_importance(network: TracedNetwork) -> list[Tensor]:
    """Return ``importance_C`` per site: L1 norm of a channel's weights times its batch-norm scale.

    Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1 norm); Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (scale).
    """
    return [_importance(network, unit) for unit in network.units if unit.site is not None]


def order_channels(
    network: TracedNetwork, importance: Sequence[Tensor] | None = None
) -> tuple[int, ...]:
    """Put each site's most important channels first, in place; the function stays the same.

    Channels that end in a residual stream share the stream's order: what counts there is the sum
    over its sites. Which channels may change places, `threads.blocks` says.

    Args:
        network: its weights are permuted.
        importance: ``importance_C`` per site, larger first; by default `channel_importance`.

    Returns:
        The indices of the sites that were ordered, in full or in part.
    """
    scores = channel_importance(network) if importance is None else importance
    widths = {unit.output.name: unit.output.width.channels for unit in network.units}
    sites = {unit.output.name: unit.site for unit in network.units if unit.site is not None}
    orders: dict[str, Tensor] = {}
    ordered = set[int]()
    for block in coupled_channels(network):
        own = {site: block[name] for name, site in sites.items() if name in block}
        if own:
            ordered.update(own)
            order_K = _block_order(own, scores)
            for name, places_K in block.items():
                order_C = orders.setdefault(name, torch.arange(widths[name]))
                order_C[places_K] = places_K[order_K]
    for unit in network.units:
        _permute(network, unit, orders)
    return tuple(sorted(ordered))


def _block_order(own: Mapping[int, Tensor], scores: Sequence[Tensor]) -> Tensor:
    """Return the order of a block's threads, by importance summed over its sites.

    Args:
        own: where the threads lie (K) in each site of the block.
        scores: ``importance_C`` of all sites; of each site the shares count.
    """
    shares_SK = [scores[site].cpu()[k] / scores[site].cpu().sum() for site, k in own.items()]
    return torch.argsort(torch.stack(shares_SK).sum(0), descending=True, stable=True)


def _importance(network: TracedNetwork, unit: Unit) -> Tensor:
    """Return the importance of one site's channels."""
    importance_C: Tensor = network.head_module(unit).weight.detach().abs().flatten(1).sum(1)
    for step in unit.followers:
        module = network.module(step.target) if step.op == "module" else None
        if isinstance(module, NORMS) and module.affine:
            scale = module.weight.detach().abs()
            return importance_C * scale.view(len(importance_C), -1).mean(1)
    return importance_C


@torch.no_grad()
def _permute(network: TracedNetwork, unit: Unit, orders: Mapping[str, Tensor]) -> None:
    """Reorder whatever a unit holds of some values' channels: rows, columns, vectors."""
    order_C = orders.get(unit.source.name) if unit.kind in ("convolution", "linear") else None
    if order_C is not None:
        weight = network.head_module(unit).weight
        weight.copy_(weight[:, _elements(order_C, unit.source.factor)])
    order_C = orders.get(unit.output.name)
    if order_C is None:
        return
    if unit.kind in ("convolution", "depthwise"):
        _permute_rows(network.head_module(unit), order_C, unit.head_factor)
    for step in unit.followers:
        if step.op == "module":
            _permute_rows(network.module(step.target), order_C, step.factor)


def _permute_rows(module: nn.Module, order_C: Tensor, factor: int) -> None:
    """Reorder dimension 0 of all parameters and buffers that have a row per element.

    Args:
        module: holds them.
        order_C: of the channels.
        factor: elements per channel.
    """
    rows = _elements(order_C, factor)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.ndim and tensor.shape[0] == len(rows) and name != "narrow_widths":
            tensor.copy_(tensor[rows])


def _elements(order_C: Tensor, factor: int) -> Tensor:
    """Return the order of the elements when each channel occupies ``factor`` of them."""
    return (order_C[:, None] * factor + torch.arange(factor, device=order_C.device)).flatten()

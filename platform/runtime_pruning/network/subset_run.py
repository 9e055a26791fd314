"""Run the channels that each image keeps: any subset of a site's, not its first ones.

Masked, everything is computed and multiplied by the saliency of the channels that are kept, zero
for the others: differentiable, for training. Sliced, the kept rows of a layer's weights are
gathered image by image, with the columns of the channels that the layer's input has kept, and only
these are multiplied. Both mean the same; values are stored at full width, zeros where absent.

What an add returns has all its channels: a stream is read whole.

Dimensions: B images, C channels, H W pixels, F features, L sites, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network.execution import Execution
from runtime_pruning.network.graph import Unit
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.sliced_calls import convolve
from runtime_pruning.network.staged_run import Mode, StagedRun
from runtime_pruning.network.traced import TracedNetwork


@dataclass
class SubsetExecution(Execution):
    """What came of running subsets. A group, in ``plans``, is one channel.

    Attributes:
        find_kept: returns `kept`, which is made when it is asked for.
    """

    find_kept: Callable[[], tuple[Tensor, ...]] = tuple

    @cached_property
    def kept(self) -> tuple[Tensor, ...]:
        """``kept_BC``, bool, of each site."""
        return self.find_kept()


def carried_subsets(network: TracedNetwork) -> dict[str, int]:
    """Return the site whose subset a value has, by the value's name; others have all channels."""
    carried: dict[str, int] = {}
    for unit in network.units:
        if unit.site is not None:
            carried[unit.output.name] = unit.site
        elif unit.kind in ("follow", "depthwise") and unit.source.name in carried:
            carried[unit.output.name] = carried[unit.source.name]
    return carried


def subset_macs(network: TracedNetwork, channels_BL: Tensor) -> Tensor:
    """Return ``macs_B``, int64: analytic MACs of the backbone where images keep so many channels.

    Args:
        network: without a second look.
        channels_BL: channels that are kept at each site, int64.
    """
    channels_BL = channels_BL.to(torch.int64)
    carried, macs_B = carried_subsets(network), torch.zeros(len(channels_BL), dtype=torch.int64)
    for unit in network.priced_units:
        if unit.fixed_macs:
            macs_B += unit.fixed_macs
            continue
        own_B, read_B = (
            channels_BL[:, carried[value.name]] if value.name in carried else value.width.channels
            for value in (unit.output, unit.source)
        )
        macs_B += own_B * (read_B if unit.mac_per_input else 1) * unit.mac_scale
    return macs_B


class SubsetRun(StagedRun):
    """A batch whose images run subsets of channels that a policy finds on the way.

    Attributes:
        saliencies: ``saliency_BC`` of each site that has run, before its threshold.
        pooled: the site's output before it is masked, averaged over the pixels, ``pooled_BC``;
            kept for training alone.
        kept: ``kept_BC`` of each site that has run.
    """

    def __init__(
        self, network: TracedNetwork, images_BCHW: Tensor, policy: SubsetPolicy, mode: Mode
    ) -> None:
        policy.check_fits(network)
        self._policy = policy
        self._carried = carried_subsets(network)
        self.saliencies: list[Tensor] = []
        self.pooled: list[Tensor] = []
        self.kept: list[Tensor] = []
        super().__init__(network, images_BCHW, mode)

    def finish(self) -> "SubsetRun":
        """Run all that is left, each site's channels as the policy finds them."""
        full_B = torch.full((self._batch,), self._network.groups)
        while not self.finished:
            saliency_BC = self._policy.saliency(self.site, self.features_BF)
            self.saliencies.append(saliency_BC)
            self.kept.append(self._policy.kept(self.site, saliency_BC.detach()))
            self.advance(full_B)
        return self

    def result(self) -> SubsetExecution:
        """Return the finished run's outcome."""
        sites = self._network.sites
        return SubsetExecution(
            logits_BK=self.logits_BK,
            plans=torch.stack([kept_BC.sum(1).cpu() for kept_BC in self.kept], 1),
            macs=self.executed_macs_B,
            policy_macs=self._policy.macs_per_image,
            bounds_LG=torch.arange(max(s.channels for s in sites) + 1).expand(len(sites), -1),
            mode=self.mode,
            find_kept=lambda: tuple(self.kept),
        )

    def _run_unit(self, unit: Unit) -> None:
        """Run one unit, and leave zeros where channels are absent."""
        super()._run_unit(unit)
        site = self._carried.get(unit.output.name)
        if site is None:
            return
        value = self._values[unit.output.name]
        factor = unit.output.factor
        scale_BC = self.kept[site].to(value.dtype)
        if unit.site is not None:
            if self._network.training:
                self.pooled.append(_pooled(value, factor))
            scale_BC = (self.saliencies[site] * self.kept[site]).to(value.dtype)
        scale_BC = scale_BC.repeat_interleave(factor, 1) if factor > 1 else scale_BC
        self._values[unit.output.name] = value * scale_BC.view(
            *scale_BC.shape, *[1] * (value.ndim - 2)
        )

    def _weighted(self, unit: Unit) -> Tensor:
        """Run a convolution or linear layer and its followers."""
        read, own = self._carried.get(unit.source.name), self._carried.get(unit.output.name)
        if self.mode == "masked" or (read is None and own is None):
            return super()._weighted(unit)
        features = self._values[unit.source.name]
        rows = [self._gathered(unit, features[b : b + 1], b, read, own) for b in range(self._batch)]
        return self._followed(unit, torch.cat(rows))

    def _gathered(
        self, unit: Unit, features: Tensor, image: int, read: int | None, own: int | None
    ) -> Tensor:
        """Call a layer on one image, its kept rows and columns alone, and count that."""
        module = self._network.head_module(unit)
        weight, bias = module.weight, module.bias
        rows_C = self._indices(own, image, unit.head_factor, weight.shape[0])
        if unit.kind != "depthwise":
            columns_C = self._indices(read, image, unit.source.factor, features.shape[1])
            if read is not None:
                weight, features = weight[:, columns_C], features[:, columns_C]
        else:
            features = features[:, rows_C]
        weight, bias = weight[rows_C], None if bias is None else bias[rows_C]
        if unit.kind == "linear":
            result = functional.linear(features, weight, bias)
        else:
            result = _convolved(module, features, weight, bias)
        self._own_macs_B[image] += result.numel() * (weight[0].numel() if len(weight) else 0)
        whole = result.new_zeros(1, module.weight.shape[0], *result.shape[2:])
        whole[:, rows_C] = result
        return whole

    def _indices(self, site: int | None, image: int, factor: int, every: int) -> Tensor:
        """Return the elements along dimension 1 that an image has of a value, int64."""
        if site is None:
            return torch.arange(every, device=self._device)
        kept_C = self.kept[site][image]
        if factor > 1:
            kept_C = kept_C.repeat_interleave(factor)
        return kept_C.nonzero()[:, 0]


def _pooled(value: Tensor, factor: int) -> Tensor:
    """Return ``pooled_BC`` of a value with so many elements per channel."""
    return value.float().reshape(len(value), value.shape[1] // factor, -1).mean(2)


def _convolved(module: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what a convolution makes, also of no inputs or to no outputs."""
    if weight.numel():
        return convolve(module, features, weight, bias)
    size = [_length(module, axis, features.shape[2 + axis]) for axis in range(2)]
    result = features.new_zeros(1, len(weight), *size)
    return result if bias is None else result + bias.view(1, -1, 1, 1)


def _length(module: nn.Conv2d, axis: int, length: int) -> int:
    """Return the rows, or columns, of what a convolution makes of so many."""
    reach = module.dilation[axis] * (module.kernel_size[axis] - 1)
    around = module._reversed_padding_repeated_twice[2 - 2 * axis : 4 - 2 * axis]
    return (length + sum(around) - reach - 1) // module.stride[axis] + 1

"""A traced backbone: its units, its sites, its groups, and its weights.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor, nn

from runtime_pruning.errors import ConfigError, TracingError
from runtime_pruning.network.batch_norm import NORMS, condition, is_conditioned
from runtime_pruning.network.graph import Graph, Site, Unit
from runtime_pruning.network.groups import group_bounds, largest_fitting_alignment
from runtime_pruning.network.weight_slices import SliceCache


class TracedNetwork(nn.Module):
    """A backbone with its graph, its sites and their groups: what is known before anything runs.

    Attributes:
        backbone: the plain module; its weights are this network's only weights.
        image_shape: (C, H, W).
        graph: the units that execution runs.
        groups: blocks of channels per site.
        sites: where decisions are taken, in order of execution.
        feature_widths: input channels of each site: the length of its pooled features.
        num_classes: length of the logits.
        weighted_units: those whose head is a convolution or a linear layer.
        priced_units: those that execute MACs.
        bounds_LG: channels by group count, from none on, at each site, int64.
    """

    def __init__(
        self,
        backbone: nn.Module,
        image_shape: tuple[int, int, int],
        graph: Graph,
        *,
        groups: int,
        align: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_shape = image_shape
        self.groups = groups
        self.num_classes = graph.num_classes
        self._modules_by_path: dict[str, Any] = {}
        heads = [unit for unit in graph.units if unit.site is not None]
        self.sites = tuple(self._site(unit, groups, align) for unit in heads)
        self._slices = SliceCache()
        self.weighted_units = tuple(unit for unit in graph.units if unit.mac_scale)
        self.priced_units = tuple(unit for unit in graph.units if unit.executes_macs)
        self.graph = graph
        self.feature_widths = tuple(site.in_channels for site in self.sites)
        self.bounds_LG = torch.tensor([site.bounds for site in self.sites])

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, in order of execution."""
        return self.graph.units

    def regroup(self, groups: int, align: int = 8) -> Self:
        """Return a network on the same weights (shared, not copied) with other groups.

        Raises:
            TracingError: a site has fewer channels than ``groups``.
        """
        other = type(self)(self.backbone, self.image_shape, self.graph, groups=groups, align=align)
        return other.train(self.training)

    def uniform(self, groups: int) -> tuple[int, ...]:
        """Return the plan that runs so many groups at each site."""
        return (groups,) * len(self.sites)

    def condition_batch_norm(self) -> Self:
        """Keep batch-norm statistics per width, behind each layer that reads pruned channels.

        Widths are those of the present groups: call it on the finest. The statistics become
        buffers of the backbone's modules; a second call changes nothing.
        """
        for unit in self.units:
            if unit.conditional:
                widths = {b for i in unit.source.width.sites for b in self.sites[i].bounds[1:]}
                for norm in self._norms(unit):
                    if not is_conditioned(norm):
                        condition(norm, sorted(widths))
        return self

    def load_backbone(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the backbone's ``state_dict`` strictly, statistics per width included if it has any.

        Raises:
            RuntimeError: names or shapes differ.
        """
        for name, widths in tensors.items():
            path, _, buffer = name.rpartition(".")
            if buffer == "narrow_widths" and not is_conditioned(self.module(path)):
                narrow = widths.tolist()
                condition(self.module(path), [*narrow, narrow[-1] + 1])
        self.backbone.load_state_dict(tensors)

    def _norms(self, unit: Unit) -> list[Any]:
        """Return the batch norms that follow a unit's head."""
        steps = (step for step in unit.followers if step.op == "module")
        found = (self.module(step.target) for step in steps)
        return [module for module in found if isinstance(module, NORMS)]

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK`` of the plain backbone."""
        result: Tensor = self.backbone(images_BCHW)
        return result

    def channels(self, groups_BL: Tensor) -> Tensor:
        """Return ``channels_BL``, int64: how many channels a plan runs at each site.

        Raises:
            ConfigError: a group count below one or above ``groups``, or more columns than sites.
        """
        columns = groups_BL.shape[1]
        if columns > len(self.sites):
            raise ConfigError(f"A plan has {len(self.sites)} sites, but got {columns} columns.")
        low, high = (int(bound) for bound in groups_BL.aminmax()) if groups_BL.numel() else (1, 1)
        if low < 1 or high > self.groups:
            raise ConfigError(
                f"`1 <= groups <= {self.groups}` must hold, but got a plan from {low} to {high}."
            )
        return self.bounds_LG[:columns].T.gather(0, groups_BL.cpu())

    def module(self, path: str) -> Any:
        """Return the backbone's module (or other attribute) at a dotted path."""
        found = self._modules_by_path.get(path)
        if found is None:
            names = path.split(".") if path else []
            found = reduce(getattr, names, self.backbone)
            if isinstance(found, nn.Module):
                self._modules_by_path[path] = found
        return found

    def head_module(self, unit: Unit) -> Any:
        """Return the convolution or linear layer that heads a unit."""
        assert unit.head is not None
        return self.module(unit.head.target)

    @property
    def slices(self) -> SliceCache:
        """Slices of weights, prepared once."""
        return self._slices

    def _site(self, unit: Unit, groups: int, align: int) -> Site:
        """Return the site that a unit heads."""
        conv = self.head_module(unit)
        assert unit.site is not None
        assert unit.head is not None
        try:
            bounds = group_bounds(conv.out_channels, groups, align)
        except ConfigError as error:
            raise TracingError(f"Site {unit.head.target!r} cannot be cut: {error}") from error
        return Site(
            index=unit.site,
            name=unit.head.target,
            in_channels=conv.in_channels,
            channels=conv.out_channels,
            bounds=bounds,
            align=largest_fitting_alignment(conv.out_channels, groups, align),
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._slices.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        """Return the sites and their bounds, for ``print``."""
        return "\n".join(f"site {s.index} {s.name}: {s.bounds}" for s in self.sites)

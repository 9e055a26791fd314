"""Run a plan: masked (everything is computed, then multiplied by zeros) or sliced (for real).

Both mean the same. In a sliced batch, images that share input and output widths are gathered, run
together at their real widths, and put back; where all images share them nothing is moved. Values
of mixed width are stored at the largest width in the batch, zero where channels are absent.

Dimensions: B images, C channels, H W pixels, L sites, F features, K classes.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.node import map_aggregate
from torch.nn import functional

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.batch_norm import NORMS, batch_norm
from runtime_pruning.network.execution import Execution
from runtime_pruning.network.graph import FxCall, Ref, TrainingOf, Unit, Value
from runtime_pruning.network.per_channel import out_of_place, rule_for
from runtime_pruning.network.policies import Chooser, PlannedChooser
from runtime_pruning.network.sliced_calls import Extent, add_channels, assemble, buckets, convolve
from runtime_pruning.network.traced import TracedNetwork

Mode = Literal["sliced", "masked"]
MODES: tuple[Mode, ...] = ("sliced", "masked")


class StagedRun:
    """A batch on its way through the network; it stands before one site until it is finished.

    Attributes:
        mode: ``"sliced"`` or ``"masked"``.
        site: index of the site whose groups are chosen next; the number of sites when finished.
    """

    def __init__(self, network: TracedNetwork, images_BCHW: Tensor, mode: Mode) -> None:
        if mode not in MODES:
            raise ConfigError(f"`mode` must be one of {MODES}, but got {mode!r}.")
        if images_BCHW.ndim != 4 or tuple(images_BCHW.shape[1:]) != network.image_shape:
            raise ConfigError(
                f"Images of shape (B, {', '.join(map(str, network.image_shape))}) are needed, "
                f"but got {tuple(images_BCHW.shape)}."
            )
        self.mode = mode
        self.site = 0
        self._common_macs = 0  # of calls on the whole batch, per image
        self._own_macs_B = torch.zeros(images_BCHW.shape[0], dtype=torch.int64)
        self._network = network
        self._batch = images_BCHW.shape[0]
        self._device = images_BCHW.device
        self._values: dict[str, Any] = {network.graph.images: images_BCHW}
        self._groups: list[Tensor] = []
        self._extents: dict[frozenset[int], Extent] = {}
        self._present: dict[tuple[frozenset[int], int], Tensor] = {}
        self._units = iter(network.units)
        self._next: Unit | None = None
        network.slices.refresh(network.head_module(unit).weight for unit in network.weighted_units)
        self._run_stage()

    @property
    def finished(self) -> bool:
        """Whether the logits are there."""
        return self._next is None

    @property
    def features_BF(self) -> Tensor:
        """The pooled input of the site's convolution; absent channels are 0."""
        unit = self._next
        if unit is None:
            raise ConfigError("A finished run has no features: no site is left.")
        pooled_BC = self._values[unit.source.name].mean((2, 3))
        missing = self._network.feature_widths[self.site] - pooled_BC.shape[1]
        return functional.pad(pooled_BC, (0, missing)) if missing else pooled_BC

    @property
    def executed_macs_B(self) -> Tensor:
        """MACs executed so far, int64, counted at the calls."""
        return self._own_macs_B + self._common_macs

    @property
    def logits_BK(self) -> Tensor:
        """Class scores, when finished."""
        if self._next is not None:
            raise ConfigError(f"A run has no logits before its end: site {self.site} is next.")
        logits_BK: Tensor = self._values[self._network.graph.logits]
        return logits_BK

    @property
    def groups_BL(self) -> Tensor:
        """The plan so far, int64, a column per site that was decided."""
        if not self._groups:
            return torch.empty(self._batch, 0, dtype=torch.int64)
        return torch.stack(self._groups, dim=1)

    def advance(self, groups_B: Tensor) -> None:
        """Decide the site, and run to the next one or to the end.

        Args:
            groups_B: int64 in [1, groups].

        Raises:
            ConfigError: the run is finished, or a count is out of range.
        """
        unit = self._next
        if unit is None:
            raise ConfigError("A finished run cannot advance.")
        self._extents[unit.output.width.sites] = self._decided(groups_B)
        self._groups.append(groups_B.detach().to("cpu", torch.int64))
        self.site += 1
        self._run_unit(unit)
        self._run_stage()

    def complete(self, chooser: Chooser) -> None:
        """Ask for each decision that is left, and run to the end."""
        while not self.finished:
            if isinstance(chooser, PlannedChooser):
                groups_B = chooser.groups_BL[:, self.site]
            else:
                with torch.no_grad():
                    groups_B = chooser.choose(self.site, self.features_BF.detach())
            self.advance(groups_B)

    def result(self) -> Execution:
        """Return the finished run's outcome."""
        return Execution(
            logits_BK=self.logits_BK,
            plans=self.groups_BL,
            macs=self.executed_macs_B,
            policy_macs=0,
            bounds_LG=self._network.bounds_LG,
            mode=self.mode,
        )

    def _decided(self, groups_B: Tensor) -> Extent:
        """Return how many channels each image runs at the site."""
        if groups_B.shape != (self._batch,):
            raise ConfigError(
                f"Groups of shape ({self._batch},) are needed, but got {tuple(groups_B.shape)}."
            )
        counts = groups_B.tolist()
        low, high = min(counts), max(counts)
        if low < 1 or high > self._network.groups:
            raise ConfigError(
                f"`1 <= groups <= {self._network.groups}` must hold at site {self.site}, "
                f"but got {low} to {high}."
            )
        bounds = self._network.sites[self.site].bounds
        return bounds[low] if low == high else torch.tensor([bounds[count] for count in counts])

    # Running units

    def _run_stage(self) -> None:
        """Run units until one needs a decision, or none is left."""
        for unit in self._units:
            if unit.site is not None:
                self._next = unit
                return
            self._run_unit(unit)
        self._next = None

    def _run_unit(self, unit: Unit) -> None:
        """Run one unit; keep its value, forget those that nobody reads any more."""
        if unit.kind == "opaque":
            result = self._opaque(unit)
        elif unit.kind in ("add", "follow"):
            result = self._followed(unit, self._joined(unit))
        else:
            result = self._weighted(unit)
        for name in unit.frees:
            del self._values[name]
        self._values[unit.output.name] = result

    def _opaque(self, unit: Unit) -> Any:
        """Run an operation on full values as torch.fx saw it."""
        step = unit.head
        assert step is not None
        args, kwargs = map_aggregate((step.args, dict(step.kwargs)), self._resolved)
        self._common_macs += unit.fixed_macs
        if step.op == "method":
            return getattr(args[0], step.target)(*args[1:], **kwargs)
        if step.op == "function":
            return step.target(*args, **kwargs)
        found = self._network.module(step.target)
        return found(*args, **kwargs) if step.op == "module" else found

    def _resolved(self, item: Any) -> Any:
        """Return what an argument stands for."""
        if isinstance(item, Ref):
            return self._values[item.name]
        if isinstance(item, TrainingOf):
            return self._network.module(item.path).training
        return item

    def _joined(self, unit: Unit) -> Tensor:
        """Return the sum of an add's values, the narrower on the first channels of the wider."""
        first, *others = (self._values[value.name] for value in unit.inputs)
        for other in others:
            first = add_channels(first, other)
        result: Tensor = first
        return result

    def _weighted(self, unit: Unit) -> Tensor:
        """Run a convolution or linear layer and its followers."""
        features = self._values[unit.source.name]
        source, own = self._extent(unit.source), self._extent(unit.output)
        if isinstance(source, int) and isinstance(own, int):
            return self._followed(unit, self._called(unit, features, source, own))
        learns = self._network.training  # batch norm must see the whole batch at once
        pieces, rows = [], []
        for bucket in buckets(source, own):
            part = features[:, : bucket.inputs * unit.source.factor].index_select(
                0, bucket.rows_N.to(self._device)
            )
            part = self._called(unit, part, bucket.inputs, bucket.outputs, bucket.rows_N)
            pieces.append(part if learns else self._steps(unit, part, bucket.inputs))
            rows.append(bucket.rows_N)
        whole = assemble(pieces, rows)
        return self._followed(unit, whole) if learns else whole

    def _called(
        self, unit: Unit, features: Tensor, source: int, own: int, rows_N: Tensor | None = None
    ) -> Tensor:
        """Call a layer at real widths, and count the MACs of the call for these images."""
        module = self._network.head_module(unit)
        inputs, outputs = source * unit.source.factor, own * unit.head_factor
        path = unit.head.target if unit.head else ""
        weight, bias = self._network.slices.get(path, unit.kind, module, inputs, outputs)
        if unit.kind == "linear":
            result = functional.linear(features, weight, bias)
        else:
            result = convolve(module, features, weight, bias)
        macs = (result.numel() // result.shape[0]) * (weight.numel() // weight.shape[0])
        if rows_N is None:
            self._common_macs += macs
        else:
            self._own_macs_B[rows_N] += macs
        return result

    def _followed(self, unit: Unit, features: Tensor) -> Tensor:
        """Run the followers on the whole batch; leave zeros where channels are absent."""
        if self._present_channels(unit.output, unit.output.factor) is None:
            return self._steps(unit, features, self._read(unit))
        own = unit.kind not in ("follow", "opaque")
        for step in unit.followers:
            present_BC = self._present_channels(unit.output, step.factor)
            features = self._step(step, features, present_BC, self._read(unit), own=own)
        if not unit.followers and (self.mode == "sliced" or unit.kind == "add"):
            return features  # zeros already
        present_BC = self._present_channels(unit.output, unit.output.factor)
        assert present_BC is not None
        whole = (*present_BC.shape, *[1] * (features.ndim - 2))
        return features * present_BC.view(whole).to(features.dtype)

    def _steps(self, unit: Unit, features: Tensor, read: Extent | None) -> Tensor:
        """Run the followers where every image has all channels."""
        own = unit.kind not in ("follow", "opaque")
        for step in unit.followers:
            features = self._step(step, features, None, read, own=own)
        return features

    def _read(self, unit: Unit) -> Extent | None:
        """Return how many channels a unit's head reads under the plan, where that varies."""
        return self._chosen(unit.source) if unit.conditional else None

    def _step(
        self,
        step: FxCall,
        features: Tensor,
        present_BC: Tensor | None,
        read: Extent | None,
        *,
        own: bool,
    ) -> Tensor:
        """Run one per-channel operation at the width of its input.

        Only features that no other unit reads (``own``) may be written to.
        """
        if step.op == "module":
            module = self._network.module(step.target)
            if isinstance(module, NORMS):
                return batch_norm(module, features, present_BC, read)
            rule = rule_for(module)
            assert rule is not None
            return rule(module if own else out_of_place(module), features, present_BC)
        args, kwargs = map_aggregate((step.args, dict(step.kwargs)), self._resolved)
        call = step.target if step.op == "function" else getattr(Tensor, step.target)
        result: Tensor = call(features, *args, **kwargs)
        return result

    # Widths

    def _chosen(self, value: Value) -> Extent:
        """Return how many channels of a value the plan runs."""
        sites = value.width.sites
        if not sites:
            return value.width.channels
        if sites not in self._extents:
            parts = [self._extents[frozenset({site})] for site in sites]
            widest = torch.stack([torch.as_tensor(part).expand(self._batch) for part in parts])
            own_B = widest.amax(0)
            low, high = (int(bound) for bound in own_B.aminmax())
            self._extents[sites] = low if low == high else own_B
        return self._extents[sites]

    def _extent(self, value: Value) -> Extent:
        """Return how many channels of a value are computed."""
        return value.width.channels if self.mode == "masked" else self._chosen(value)

    def _present_channels(self, value: Value, factor: int) -> Tensor | None:
        """Return ``present_BC``, bool, or None if no stored channel of any image is absent."""
        chosen, stored = self._chosen(value), value.width.channels
        if self.mode == "sliced":
            stored = chosen if isinstance(chosen, int) else int(chosen.max())
        if isinstance(chosen, int) and chosen == stored:
            return None
        key = (value.width.sites, factor)
        if key not in self._present:
            chosen_B1 = torch.as_tensor(chosen).expand(self._batch)[:, None]
            present_BC = torch.arange(stored) < chosen_B1
            present_BC = present_BC.repeat_interleave(factor, dim=1)
            self._present[key] = present_BC.to(self._device)
        return self._present[key]

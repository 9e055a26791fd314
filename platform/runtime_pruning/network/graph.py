"""What a traced backbone is made of: values, their widths, and the units that compute them.

A *unit* is one operation that mixes channels or images of several values (a convolution, a linear
layer, a residual add) with the chain of per-channel operations that follows it. Everything here is
plain data: it pickles, and it names modules instead of holding them.

A value's *width* is symbolic. It is fixed, or it is the largest of the widths that some sites
choose, image by image. Its *factor* is the number of elements that one channel occupies along
dimension 1: 1 in a feature map, H * W after flattening.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor
from torch.fx.node import map_aggregate
from torch.nn import functional

# Functions that are nameless closures (max_pool2d), by identity: where they are found.
DISPATCHED = {
    id(function): name
    for name, function in vars(functional).items()
    if getattr(function, "__qualname__", name) != name
}

UnitKind = Literal["convolution", "depthwise", "linear", "add", "follow", "opaque"]


@dataclass(frozen=True)
class Ref:
    """Stands for the value called ``name`` in the arguments of a step."""

    name: str


@dataclass(frozen=True)
class TrainingOf:
    """Stands for the training mode of a module in the arguments of a step.

    Attributes:
        path: of the module; empty for the backbone.
    """

    path: str


@dataclass(frozen=True)
class NoSite:
    """A convolution whose output channels always run all.

    Attributes:
        name: its path in the backbone.
        reason: why they do.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Width:
    """How many channels a value has.

    Attributes:
        channels: at full width.
        sites: the width is the largest that these sites choose; none: it is always full.
    """

    channels: int
    sites: frozenset[int] = frozenset()

    @property
    def pruned(self) -> bool:
        """Whether channels of the value may be absent."""
        return bool(self.sites)

    def resolve(self, channels_BL: Tensor) -> Tensor:
        """Return ``width_B``, int64, under a plan (at least its sites' columns)."""
        if not self.sites:
            return channels_BL.new_full((channels_BL.shape[0],), self.channels)
        return channels_BL[:, sorted(self.sites)].amax(1)


@dataclass(frozen=True)
class Value:
    """The result of a step: its name, its width, elements per channel along dimension 1."""

    name: str
    width: Width
    factor: int = 1


@dataclass(frozen=True)
class FxCall:
    """One operation, as torch.fx saw it.

    Attributes:
        name: of the fx node.
        op: what ``target`` is: the path of a module or attribute, a function, a method's name.
        target: see ``op``.
        args: positional arguments; a follower's first one, the chain's value, is left out.
        kwargs: keyword arguments.
        factor: elements per channel in a follower's input.
    """

    name: str
    op: Literal["module", "function", "method", "attribute"]
    target: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    factor: int = 1

    def at_inference(self) -> "FxCall":
        """Return the same with no module in training mode."""
        args, kwargs = map_aggregate(
            (self.args, dict(self.kwargs)),
            lambda item: False if isinstance(item, TrainingOf) else item,
        )
        return replace(self, args=args, kwargs=kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Some functions (max_pool2d) are nameless closures: they pickle by where they are found.
        path = DISPATCHED.get(id(self.target)) if self.op == "function" else None
        return {**vars(self), "target": path} if path else vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.op == "function" and isinstance(self.target, str):
            vars(self)["target"] = getattr(functional, self.target)


@dataclass(frozen=True)
class Unit:
    """One head with the per-channel steps that follow it.

    Attributes:
        kind: what the head does.
        head: None for a unit that only follows.
        inputs: the values that the head reads.
        output: the value after the last follower.
        followers: per-channel steps, in order.
        site: index of the site that decides the output's width, if the head is one.
        mac_scale: MACs of the head on one image, per output channel (and input channel).
        mac_per_input: whether MACs grow with the input's width too.
        frees: values that nobody reads after this unit.
        fixed_macs: MACs on one image of a head of which nothing is known, whatever the plan.
    """

    kind: UnitKind
    head: FxCall | None
    inputs: tuple[Value, ...]
    output: Value
    followers: tuple[FxCall, ...] = ()
    site: int | None = None
    mac_scale: int = 0
    mac_per_input: bool = False
    frees: tuple[str, ...] = ()
    fixed_macs: int = 0

    @property
    def executes_macs(self) -> bool:
        """Whether the head multiplies."""
        return bool(self.mac_scale or self.fixed_macs)

    @property
    def source(self) -> Value:
        """The value that the head reads first."""
        return self.inputs[0]

    @property
    def head_factor(self) -> int:
        """Elements per channel in the head's own output."""
        return self.followers[0].factor if self.followers else self.output.factor

    @property
    def conditional(self) -> bool:
        """Whether the head mixes channels of which a plan may leave some out."""
        return self.kind in ("convolution", "linear") and self.source.width.pruned

    def macs(self, channels_BL: Tensor) -> Tensor:
        """Return ``macs_B``, int64: multiply-accumulates of the head under a plan."""
        if self.fixed_macs:
            return channels_BL.new_full((channels_BL.shape[0],), self.fixed_macs)
        macs_B = self.output.width.resolve(channels_BL) * self.mac_scale
        return macs_B * self.source.width.resolve(channels_BL) if self.mac_per_input else macs_B


@dataclass(frozen=True)
class Graph:
    """A backbone as units, in order of execution.

    Attributes:
        units: each reads values of earlier ones.
        images: name of the value that enters.
        logits: name of the value that leaves.
        num_classes: length of the logits.
        streams: whether convolutions that end in a residual add are sites.
        groups: that each site can be cut into; narrower convolutions are no sites.
        no_sites: the other convolutions, with the reason for each.
    """

    units: tuple[Unit, ...]
    images: str
    logits: str
    num_classes: int
    streams: bool
    groups: int = 1
    no_sites: tuple[NoSite, ...] = ()

    @property
    def stages(self) -> tuple[tuple[Unit, ...], ...]:
        """The units before the first decision, then those that follow each decision."""
        starts = [index for index, unit in enumerate(self.units) if unit.site is not None]
        borders = zip([0, *starts], [*starts, len(self.units)], strict=True)
        return tuple(self.units[first:last] for first, last in borders)


@dataclass(frozen=True)
class Site:
    """A convolution whose output channels may be left out: where a decision is taken.

    Attributes:
        index: position among the sites, in order of execution.
        name: path of the convolution in the backbone.
        in_channels: channels of its input at full width.
        channels: its output channels at full width.
        bounds: ``bounds[g]`` channels run with g groups; ``bounds[0] == 0`` and
            ``bounds[-1] == channels``.
        align: the multiple that the bounds keep to, but for the last.
    """

    index: int
    name: str
    in_channels: int
    channels: int
    bounds: tuple[int, ...]
    align: int

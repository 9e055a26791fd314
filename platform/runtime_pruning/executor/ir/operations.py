"""The operations that a network is lowered to, and the parts that they are made of.

Dimensions: B images, C and D channels, H W pixels, L sites.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.executor.ir.patterns import Scaling
from runtime_pruning.network.batch_norm import Norm, Read, batch_norm, is_conditioned
from runtime_pruning.network.graph import FxCall, UnitKind, Value

Call: TypeAlias = Callable[[Tensor], Tensor]
AddCall: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Activation:
    """What a fused call does to its result.

    Attributes:
        attr: oneDNN's name; "none" leaves the result.
        scalars: limits of a "hardtanh".
    """

    attr: str = "none"
    scalars: tuple[float, ...] = ()

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest result."""
        if self.attr == "relu":
            return 0.0, math.inf
        return (self.scalars[0], self.scalars[1]) if self.scalars else (-math.inf, math.inf)

    @property
    def nonnegative(self) -> bool:
        """Whether no result is below zero."""
        return self.attr == "relu" or (self.attr == "hardtanh" and self.scalars[0] >= 0)

    def apply_(self, features: Tensor) -> Tensor:
        """Return the features, changed in place."""
        if self.attr == "relu":
            return features.relu_()
        if self.attr == "hardtanh":
            return functional.hardtanh_(features, *self.scalars)
        return features


NOTHING = Activation()


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over the pixels."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer at a real width.

    Attributes:
        weight: shape (D, C / groups, h, w) or (D, C).
        bias: shape (D,), if there is one.
        geometry: of a convolution that the fused calls know.
        groups: of a convolution at this width.
    """

    weight: Tensor
    bias: Tensor | None
    geometry: Geometry | None
    groups: int


Follower: TypeAlias = Callable[[Tensor], Tensor]


class TypedModule:
    """A module in evaluation mode, for features of any type: its numbers are cast once per type.

    Args:
        module: its own type is kept where it has no floating-point numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        numbers = [*module.parameters(), *module.buffers()]
        self._types = {number.dtype for number in numbers if number.is_floating_point()}
        self._cast: dict[torch.dtype, nn.Module] = {}

    def of(self, dtype: torch.dtype) -> nn.Module:
        """Return the module with numbers of a type."""
        if self._types <= {dtype}:
            return self._module
        if dtype not in self._cast:
            self._cast[dtype] = copy.deepcopy(self._module).to(dtype)
        return self._cast[dtype]


@dataclass(frozen=True)
class LateNorm:
    """A batch norm that cannot be folded, since something stands between it and the layer."""

    norm: Norm

    def __call__(self, features: Tensor, read: Read | None = None) -> Tensor:
        """Return the features, normalised by the statistics of the width that the layer read."""
        return batch_norm(self.norm, features, None, read)


@dataclass(frozen=True)
class Operation:
    """One call, or a few, at inference.

    Attributes:
        kind: of the unit.
        inputs: what it reads.
        output: what it writes.
        site: index of the site that it is, if it is one.
        weight: at full width.
        bias: likewise.
        norms: batch norms right after it, to be folded into weight and bias.
        geometry: of a convolution; None where it must be called as a module (odd padding).
        groups: of a convolution at full width.
        head_factor: elements per channel, along dimension 1, in a layer's own result.
        module: the layer, for what is not held here.
        activation: done by the call.
        followers: done after it.
        step: what an opaque operation does.
        onto: the value that the convolution's result is added to.
        conv_output: with ``onto``: the convolution's own result, before the add.
        scaling: of an opaque operation that normalises images.
        fixed_macs: per image, of an opaque operation.
    """

    kind: UnitKind
    inputs: tuple[Value, ...]
    output: Value
    site: int | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    norms: tuple[Norm, ...] = ()
    geometry: Geometry | None = None
    groups: int = 1
    head_factor: int = 1
    module: Any = None
    activation: Activation = NOTHING
    followers: tuple[Follower, ...] = ()
    step: FxCall | None = None
    onto: Value | None = None
    conv_output: Value | None = None
    scaling: Scaling | None = None
    fixed_macs: int = 0

    @property
    def conditional(self) -> bool:
        """Whether a batch norm behind it has statistics per width that it reads."""
        late = [part.norm for part in self.followers if isinstance(part, LateNorm)]
        return any(is_conditioned(norm) for norm in (*self.norms, *late))

    @property
    def source(self) -> Value:
        """The value that is read first."""
        return self.inputs[0]

    @property
    def reads(self) -> tuple[Value, ...]:
        """All values that are read."""
        return self.inputs if self.onto is None else (*self.inputs, self.onto)

    @property
    def results(self) -> tuple[Value, ...]:
        """The value that is written, and what it consists of where an add was fused."""
        return (self.output,) if self.conv_output is None else (self.output, self.conv_output)

    @property
    def widths(self) -> tuple[Value, ...]:
        """All values whose width matters to the call."""
        return (*self.reads, *self.results)


@dataclass
class Lowered:
    """A network's operations, stage by stage.

    Attributes:
        stages: before the first decision, then after each.
        sources: the value that each site reads.
        images: name of the value that enters.
        logits: name of the value that leaves.
        last_reader: index of the operation, over all stages, that reads a value last.
        owned: values in storage of their own, that may be overwritten once nobody reads them.
        nonnegative: values without an element below zero.
    """

    stages: tuple[tuple[Operation, ...], ...]
    sources: tuple[Value, ...]
    images: str
    logits: str
    last_reader: dict[str, int] = field(default_factory=dict)
    owned: frozenset[str] = frozenset()
    nonnegative: frozenset[str] = frozenset()

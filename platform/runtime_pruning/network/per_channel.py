"""Per-channel operations: what may follow a pruned convolution, and how it runs at a real width.

A per-channel operation computes each channel of its output from that channel of its input alone.
Modules are looked up by class, so a third party adds its own with `per_channel`.

Dimensions: B images, C channels (elements along dimension 1), H W pixels.
"""

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network.batch_norm import NORMS, batch_norm
from runtime_pruning.network.graph import FxCall, Ref

# (module, features of real width, present_BC or None where every image has all of them)
Rule: TypeAlias = Callable[[Any, Tensor, Tensor | None], Tensor]

_RULES: dict[type[nn.Module], Rule] = {}


def per_channel(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Return a decorator that files how modules of these classes run on the first channels."""

    def decorate(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(types, rule))
        return rule

    return decorate


def rule_for(module: nn.Module) -> Rule | None:
    """Return the rule of the module's class or of its nearest base, if there is one.

    A class that computes otherwise than the base whose rule it would get has none.
    """
    base = next((base for base in type(module).__mro__ if base in _RULES), None)
    return _RULES[base] if base is not None and inherits_forward(module, base) else None


def inherits_forward(module: nn.Module, base: type[nn.Module]) -> bool:
    """Whether a module computes what modules of a base class compute."""
    if not isinstance(module, base) or "forward" in vars(module):
        return False
    used: tuple[str, ...] = ("forward", "_conv_forward", "_check_input_dim")
    own = type(module)
    return all(getattr(own, name, None) is getattr(base, name, None) for name in used)


def out_of_place(module: nn.Module) -> nn.Module:
    """Return a module on the same tensors that leaves its input alone."""
    if not getattr(module, "inplace", False):
        return module
    twin = copy.copy(module)
    twin.inplace = False  # type: ignore[assignment]
    return twin


@per_channel(
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Threshold, nn.Hardshrink, nn.Softshrink),
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.ZeroPad2d, nn.Upsample),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
def _as_it_is(module: nn.Module, features: Tensor, present_BC: Tensor | None) -> Tensor:
    result: Tensor = module(features)
    return result


@per_channel(*NORMS)
def _normalise(module: Any, features: Tensor, present_BC: Tensor | None) -> Tensor:
    return batch_norm(module, features, present_BC)


@per_channel(nn.PReLU)
def _prelu(module: nn.PReLU, features: Tensor, present_BC: Tensor | None) -> Tensor:
    slopes = module.weight if module.num_parameters == 1 else module.weight[: features.shape[1]]
    return functional.prelu(features, slopes)


@per_channel(nn.Flatten)
def _flatten(module: nn.Flatten, features: Tensor, present_BC: Tensor | None) -> Tensor:
    return features.flatten(1)


_POINTWISE: frozenset[Any] = frozenset(
    {
        *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu),
        *(functional.gelu, functional.silu, functional.mish, functional.softplus),
        *(functional.hardswish, functional.hardsigmoid, functional.hardtanh, functional.celu),
        *(functional.selu, functional.logsigmoid, functional.dropout, functional.dropout2d),
        *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.mul, torch.div),
        *(functional.sigmoid, functional.tanh, torch.abs, torch.exp, torch.square, torch.neg),
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg),
    }
)
_IMAGES_ONLY: frozenset[Any] = frozenset(
    {
        *(functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
        *(functional.adaptive_max_pool2d, functional.interpolate),
    }
)
_METHODS = frozenset(
    {
        *("relu", "sigmoid", "tanh", "clamp", "contiguous", "mul", "div", "add", "sub", "abs"),
        *("exp", "square", "neg", "hardswish", "float", "clone", "detach"),
    }
)
# Functions of packages that need not be there, by module and name.
_BY_NAME = frozenset({("torchvision.ops.stochastic_depth", "stochastic_depth")})
ADDS: frozenset[Any] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
_REDUCTIONS: frozenset[Any] = frozenset({torch.mean, "mean", torch.sum, "sum", torch.amax, "amax"})
_FLATTENS: frozenset[Any] = frozenset({torch.flatten, "flatten", torch.reshape, "view", "reshape"})
_SQUEEZES: frozenset[Any] = frozenset({torch.squeeze, "squeeze"})


def per_channel_call(
    node: FxCall, before: tuple[int, ...], after: tuple[int, ...]
) -> FxCall | None:
    """Return a call of a function or method as a per-channel step, or None if it is none.

    Args:
        node: the call; its ``args`` are those after the value, values among them as `Ref`.
        before: shape of the value.
        after: shape of the result.
    """
    target, image = node.target, len(before) == 4
    if target in _FLATTENS:
        flat = len(before) > 2 and after == (before[0], math.prod(before[1:]))
        return FxCall(node.name, "method", "flatten", (1,)) if flat else None
    rest = (node.args, node.kwargs)
    if any(True for _ in refs(rest)):
        return None
    if target in _REDUCTIONS:
        return node if image and _over_pixels(node) else None
    if target in _SQUEEZES:
        return node if _over_pixels(node, len(before)) else None
    if target is operator.getitem:
        return node if image and _takes_pixel(node.args[0]) else None
    if target is functional.pad:
        return node if image and _around_pixels(node) else None
    if node.op == "method":
        return node if target in _METHODS else None
    named = (getattr(target, "__module__", ""), getattr(target, "__name__", "")) in _BY_NAME
    return node if named or target in _POINTWISE or (image and target in _IMAGES_ONLY) else None


def refs(arguments: Any) -> Iterator[Ref]:
    """Yield the references in nested arguments."""
    if isinstance(arguments, Ref):
        yield arguments
    elif isinstance(arguments, Mapping):
        yield from refs(tuple(arguments.values()))
    elif isinstance(arguments, tuple | list):
        for item in arguments:
            yield from refs(item)
    elif isinstance(arguments, slice):
        yield from refs((arguments.start, arguments.stop, arguments.step))


def _over_pixels(call: FxCall, ndim: int = 4) -> bool:
    """Whether a reduction runs over dimensions behind the channels only."""
    dims = call.args[0] if call.args else call.kwargs.get("dim")
    listed = dims if isinstance(dims, tuple | list) else (dims,)
    return bool(listed) and all(type(dim) is int and dim % ndim >= 2 for dim in listed)


def _takes_pixel(index: Any) -> bool:
    """Whether an index picks one pixel of all channels of all images."""
    whole: Any = slice(None, None, None)
    if not isinstance(index, tuple) or len(index) != 4 or index[:2] != (whole, whole):
        return False
    return all(type(part) is int for part in index[2:])


def _around_pixels(call: FxCall) -> bool:
    """Whether padding adds to H and W only."""
    pads = call.args[0] if call.args else call.kwargs.get("pad", ())
    return len(pads) <= 4

"""Per-channel operations: what may follow a pruned convolution, and how it runs at a real width.

A per-channel operation computes each channel of its output from that channel of its input alone.
Modules are looked up by class, so a third party adds its own with `per_channel`.

Dimensions: B images, C channels (elements along dimension 1), H W pixels.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network.batch_norm import NORMS, batch_norm
from runtime_pruning.network.graph import FxCall

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
    """Return the rule of the module's class or of its nearest base, if there is one."""
    return next((_RULES[base] for base in type(module).__mro__ if base in _RULES), None)


@per_channel(
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
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


FUNCTIONS: frozenset[Any] = frozenset(
    {
        *(
            functional.relu,
            functional.relu6,
            functional.leaky_relu,
            functional.elu,
            functional.gelu,
            functional.silu,
            functional.mish,
            functional.hardswish,
            functional.hardsigmoid,
        ),
        *(
            functional.dropout,
            functional.dropout2d,
            functional.softplus,
            functional.max_pool2d,
            functional.avg_pool2d,
        ),
        *(functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d, functional.interpolate),
        *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, torch.clamp),
        *(operator.add, operator.sub, operator.mul, operator.truediv, torch.mul, torch.div),
    }
)
METHODS = frozenset(
    {"relu", "relu_", "sigmoid", "tanh", "clamp", "contiguous", "mul", "div", "add", "sub"}
)
ADDS: frozenset[Any] = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
_MEANS: frozenset[Any] = frozenset({torch.mean, "mean"})
_FLATTENS: frozenset[Any] = frozenset({torch.flatten, "flatten"})
_RESHAPES: frozenset[Any] = frozenset({torch.reshape, "view", "reshape"})


def per_channel_call(
    name: str, op: Any, target: Any, args: tuple[Any, ...], kwargs: Any
) -> FxCall | None:
    """Return the per-channel step for a call of a function or method, or None if it is none.

    Args:
        name: of the fx node.
        op: ``"function"`` or ``"method"``.
        target: the function, or the method's name.
        args: arguments after the value, fx nodes replaced by `Ref`.
        kwargs: keyword arguments, likewise.
    """
    if target in _FLATTENS | _RESHAPES and _flattens(target, args, kwargs):
        return FxCall(name, "method", "flatten", (1,))
    known = FUNCTIONS if op == "function" else METHODS
    if target in known or (target in _MEANS and _over_pixels(args, kwargs)):
        return FxCall(name, op, target, args, kwargs)
    return None


def _flattens(target: Any, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a flatten, view or reshape keeps images and joins channels with pixels."""
    if target in _FLATTENS:
        start = args[0] if args else kwargs.get("start_dim", 0)
        end = args[1] if len(args) > 1 else kwargs.get("end_dim", -1)
        return start == 1 and end in (-1, 3)
    sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    return len(sizes) == 2 and sizes[1] == -1 and not isinstance(sizes[0], int)


def _over_pixels(args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether a mean runs over H and W only."""
    dims = args[0] if args else kwargs.get("dim")
    listed = dims if isinstance(dims, tuple | list) else (dims,)
    return all(dim in (2, 3, -1, -2) for dim in listed)

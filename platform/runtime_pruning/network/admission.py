"""What a backbone may not hold: whatever changes the function behind the back of its modules.

Hooks, parametrizations and masks compute outside of ``forward``: a slice of a layer's weights would
not see them. Each is refused by name, with the way to make it part of the weights.

Parameters that two modules share are allowed, but what they compute stays whole and in order.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.utils import parametrize

from runtime_pruning.errors import TracingError

_WAYS_OUT = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm(module)",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm(module)",
    "BasePruningMethod": "torch.nn.utils.prune.remove(module, name)",
}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def admit(backbone: nn.Module) -> None:
    """Pass a backbone of which modules tell the whole.

    Raises:
        TracingError: a module has a hook or a parametrization.
    """
    for path, module in backbone.named_modules():
        name = f"{type(module).__name__} {path!r}"
        if parametrize.is_parametrized(module):
            tensors = ", ".join(module.parametrizations)
            raise TracingError(
                f"{name} has a parametrization of {tensors}, which slices of its weights would "
                "not see: torch.nn.utils.parametrize.remove_parametrizations(module, name) makes "
                "it part of the weights."
            )
        for kind in _HOOKS:
            for hook in getattr(module, kind).values():
                raise TracingError(
                    f"{name} has a hook, which slices of its weights would not run, "
                    f"{_told(hook, kind)}"
                )


def _told(hook: object, kind: str) -> str:
    """Return what a hook is and how to do without."""
    bases = {base.__name__ for base in type(hook).__mro__}
    for base, way_out in _WAYS_OUT.items():
        if base in bases:
            return f"of {type(hook).__name__}: {way_out} makes it part of the weights."
    name = getattr(hook, "__qualname__", type(hook).__name__)
    return f"({kind.strip('_')}: {name}): remove it, or write what it does into a forward."


def shared_modules(backbone: nn.Module, calls: Iterable[str]) -> Mapping[nn.Module, str]:
    """Return the modules whose parameters are used twice, each with how.

    Args:
        backbone: holds the modules.
        calls: paths of modules and parameters in the order in which a forward uses them.
    """
    paths = {module: path for path, module in backbone.named_modules()}
    users: dict[int, list[str]] = defaultdict(list)
    own: dict[nn.Module, list[int]] = {}
    for module in backbone.modules():
        own[module] = [id(parameter) for parameter in module.parameters(recurse=False)]
        for parameter in own[module]:
            users[parameter].append(paths[module])
    found: dict[nn.Module, str] = {}
    for module, ids in own.items():
        others = {path for parameter in ids for path in users[parameter]} - {paths[module]}
        if others:
            found[module] = f"its parameters are also those of {sorted(others)[0]!r}"
    called: dict[int, int] = defaultdict(int)
    for path in calls:
        for parameter in _parameters_at(backbone, path):
            called[parameter] += 1
    for module, ids in own.items():
        if module not in found and any(called[parameter] > 1 for parameter in ids):
            found[module] = "its parameters are used twice"
    return found


def _parameters_at(backbone: nn.Module, path: str) -> list[int]:
    """Return the parameters of a module with all that it holds, or one parameter."""
    parent, _, name = path.rpartition(".")
    holder = backbone.get_submodule(parent)
    if name in holder._parameters:
        return [id(holder._parameters[name])]
    module = holder._modules.get(name) if name else backbone
    return [id(p) for p in module.parameters()] if module is not None else []

"""What a traced network computes, as one text: networks with equal texts and weights are equal.

It names every operation with its arguments and every module with its settings (stride, padding,
probability of dropout, ...), so that an edited ``forward`` gives another text. Of code that is not
PyTorch's it holds the source.
"""

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from runtime_pruning.network.graph import DISPATCHED, FxCall, Ref, Unit, Value
from runtime_pruning.network.traced import TracedNetwork

# Their code changes with the version of PyTorch, and with nothing else.
_KNOWN_CODE = ("torch", "_operator", "operator", "builtins", "math")


def structure(network: TracedNetwork) -> str:
    """Return the text: images and classes, then a line per unit; neither weights nor groups."""
    head = f"{network.image_shape} -> {network.num_classes}: {network.graph.logits}"
    return "\n".join([head, *(_unit(network, unit) for unit in network.units)])


def structure_key(network: TracedNetwork) -> str:
    """Return the 16 hexadecimal digits that name a structure."""
    return hashlib.sha256(structure(network).encode()).hexdigest()[:16]


def weights_hash(network: TracedNetwork) -> str:
    """Return a hash of names, shapes and values of the backbone's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _unit(network: TracedNetwork, unit: Unit) -> str:
    """Return the line of a unit."""
    calls = [call for call in (unit.head, *unit.followers) if call is not None]
    parts = [
        unit.kind,
        *(_value(value) for value in unit.inputs),
        *(f"{_target(network, call)}({', '.join(_arguments(call))})" for call in calls),
        _value(unit.output),
        f"{unit.mac_scale} MACs",
    ]
    return " ".join(parts)


def _value(value: Value) -> str:
    width = value.width
    return f"{value.name}:{width.channels}x{value.factor}@{sorted(width.sites)}"


def _target(network: TracedNetwork, call: FxCall) -> str:
    """Return what an operation is, whatever the process that asks."""
    if call.op == "function":
        name = DISPATCHED.get(id(call.target)) or getattr(call.target, "__qualname__", call.target)
        return f"{call.target.__module__}.{name}{_source(call.target)}"
    if call.op == "module":
        module: nn.Module = network.module(call.target)
        settings = f"{type(module).__qualname__}({module.extra_repr()})"
        return f"{call.target}={settings}{_source(type(module))}"
    if call.op == "attribute":
        return f"attribute {call.target}{_constant(network, call.target)}"
    return f"{call.op} {call.target}"


def _constant(network: TracedNetwork, path: str) -> str:
    """Return the value of an attribute that is no weight: weights are not the structure."""
    if path in network.backbone.state_dict() or path in dict(network.backbone.named_parameters()):
        return ""
    value = network.module(path)
    return f"={value.tolist() if isinstance(value, Tensor) else value!r}"


def _source(code: Any) -> str:
    """Return the source of code that is not PyTorch's, behind a line break."""
    if code.__module__.partition(".")[0] in _KNOWN_CODE:
        return ""
    try:
        return "\n" + inspect.getsource(code)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        return f" of {code.__module__}"


def _arguments(call: FxCall) -> Iterator[str]:
    """Yield arguments as text."""
    for value in call.args:
        yield _argument(value)
    for name, value in sorted(call.kwargs.items()):
        yield f"{name}={_argument(value)}"


def _argument(value: Any) -> str:
    if isinstance(value, Ref):
        return f"%{value.name}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_argument(each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_argument(each)}' for name, each in value.items())}}}"
    return repr(value)

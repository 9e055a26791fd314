"""Make a recorded graph say what it means: nothing in place, training modes as they are asked.

A node that writes to a value becomes one that returns a new value, and whoever reads that memory
later, by whatever name, reads the new value. What cannot be put so is refused by name.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from runtime_pruning.errors import TracingError
from runtime_pruning.network.graph import TrainingOf
from runtime_pruning.network.per_channel import rule_for
from runtime_pruning.network.recording import BATCH, Recording, UnfollowableError, record

_ARITHMETIC: dict[Any, Any] = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
} | {operator.iand: operator.and_, operator.ior: operator.or_}
_COMMUTES = frozenset({operator.add, operator.mul, torch.add, torch.mul})
_DROPOUTS = frozenset({functional.dropout, functional.dropout2d, functional.feature_alpha_dropout})


def normalised(backbone: nn.Module, image_shape: tuple[int, int, int]) -> tuple[Recording, Any]:
    """Return a backbone's graph with no writes in it, and why some modules are single calls.

    Returns:
        The recording, and the reason by module path.

    Raises:
        TracingError: what the backbone does cannot be put as such a graph.
    """
    told = inspect.signature(backbone.forward).parameters.values()
    needed = [one.name for one in told if one.default is one.empty]
    if len(needed) != 1:
        raise TracingError(f"A backbone takes one argument, its images, but got {needed}.")
    like = next(backbone.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.rand(BATCH, *image_shape, generator=generator).to(like)
    calls: dict[str, str] = {}
    while True:
        try:
            plain, learning = (
                record(backbone, images_BCHW, frozenset(calls), training=training)
                for training in (False, True)
            )
            _follow_modes(plain, learning)
        except UnfollowableError as error:
            if not error.path or error.path in calls:
                raise TracingError(error.told) from error
            calls[error.path] = error.told
            continue
        _remove_asserts(plain)
        _remove_writes(plain, backbone)
        return plain, calls


# Training mode


def _follow_modes(plain: Recording, learning: Recording) -> None:
    """Let arguments that differ in training follow the mode of the module that gives them.

    Raises:
        UnfollowableError: a module does another thing in training.
    """
    nodes, others = list(plain.graph.nodes), list(learning.graph.nodes)
    same = dict(zip(others, nodes, strict=False))
    for node, other in zip(nodes, others, strict=False):
        args = map_arg((other.args, dict(other.kwargs)), lambda part: same.get(part, part))
        owner = plain.owners.get(node, "")
        merged = _merged((node.args, dict(node.kwargs)), args, owner)
        constant = node.op == other.op == "get_attr" and _equal(plain, node, learning, other)
        if not constant and (
            (node.op, node.target) != (other.op, other.target) or merged is _DIFFERS
        ):
            _refuse_mode(plain, node, learning, other)
        if merged is not _DIFFERS and node.op != "output":
            node.args, node.kwargs = merged
        _refuse_random(node)
        if other in learning.writes:
            plain.writes.setdefault(node, [same[part] for part in learning.writes[other]])
    if len(nodes) != len(others):
        _refuse_mode(plain, nodes[-1], learning, others[-1])


_DIFFERS = object()


def _merged(one: Any, other: Any, owner: str) -> Any:
    """Return arguments that are right in both modes, or `_DIFFERS`."""
    if one is False and other is True:
        return TrainingOf(owner)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        parts = [_merged(a, b, owner) for a, b in zip(one, other, strict=True)]
        return _DIFFERS if any(part is _DIFFERS for part in parts) else type(one)(parts)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        found = {key: _merged(one[key], other[key], owner) for key in one}
        return _DIFFERS if any(part is _DIFFERS for part in found.values()) else found
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one if one is other else _DIFFERS
    return one if type(one) is type(other) and one == other else _DIFFERS


def _equal(plain: Recording, node: fx.Node, learning: Recording, other: fx.Node) -> bool:
    """Whether two attributes hold the same: constants get a new name at each recording."""
    one, two = plain.values[node], learning.values[other]
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one is two or torch.equal(one, two)
    return one is two


def _refuse_mode(plain: Recording, node: fx.Node, learning: Recording, other: fx.Node) -> None:
    """Raise: a module does another thing in training."""
    one, two = (r.owners.get(n, "") for r, n in ((plain, node), (learning, other)))
    common = []
    for part, others in zip(one.split("."), two.split("."), strict=False):
        if part != others:
            break
        common.append(part)
    raise UnfollowableError(
        ".".join(common),
        f"Node {node.name!r} is another in training ({other.name!r}): what the backbone computes "
        "branches on `self.training`. Put the difference into a module of its own, such as "
        "nn.Dropout, or leave it out.",
    )


def _refuse_random(node: fx.Node) -> None:
    """Raise where a dropout is on in evaluation."""
    if node.target in _DROPOUTS and isinstance(node.target, Callable):  # type: ignore[arg-type]
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
        bound.apply_defaults()
        if bound.arguments.get("training") is True and bound.arguments.get("p"):
            raise TracingError(
                f"Node {node.name!r} ({node.target.__name__}) drops values in evaluation, too, so "
                "that logits are chance: give it `training=self.training`, or use nn.Dropout."
            )


# Writes


def _remove_asserts(recording: Recording) -> None:
    """Remove assertions, which held, with the plain numbers that only they read."""
    stack = [node for node in recording.graph.nodes if node.target is torch._assert]
    while stack:
        node = stack.pop()
        unread = not node.users and node.op.startswith("call_") and node.graph is recording.graph
        if unread and not isinstance(recording.values.get(node), Tensor):
            stack += node.all_input_nodes
            recording.graph.erase_node(node)
            recording.writes.pop(node, None)


def _remove_writes(recording: Recording, backbone: nn.Module) -> None:
    """Replace each node that writes to a value by one that returns a new one."""
    modules = dict(backbone.named_modules(remove_duplicate=False))
    for node in list(recording.graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.op == "call_function" and node.target in _COMMUTES:
            _value_first(node)
        if (
            node.op == "call_method"
            and node.target == "view"
            and not isinstance(node.args[1], torch.dtype)
        ):
            node.target = "reshape"  # whatever the layout; nobody writes to it any more
        written = [part for part in recording.writes.get(node, ()) if part.op != "get_attr"]
        if module is not None and getattr(module, "inplace", False):
            written = written or node.all_input_nodes[:1]
        if node.target in _ARITHMETIC:
            node.target = _ARITHMETIC[node.target]
        elif written:
            _make_plain(node, module)
        for part in written:
            _rewire(recording, node, part)


def _value_first(node: fx.Node) -> None:
    """Put the value before the number, where either order means the same."""
    if len(node.args) == 2 and not isinstance(node.args[0], fx.Node) and not node.kwargs:
        node.args = (node.args[1], node.args[0])


def _make_plain(node: fx.Node, module: nn.Module | None) -> None:
    """Let a node return a new value instead of writing to the one it reads."""
    if module is not None:
        if getattr(module, "inplace", False) and rule_for(module) is not None:
            return  # run by its rule, which leaves its input alone
    elif node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__") and hasattr(Tensor, name[:-1]):
            node.target = name[:-1]
            return
    elif _without_inplace(node):
        return
    raise TracingError(
        f"Node {node.name!r} ({node.op} {node.target}) writes to {node.all_input_nodes[0].name!r}, "
        "and there is no form of it that does not: let it return a new tensor."
    )


def _without_inplace(node: fx.Node) -> bool:
    """Turn a function's ``inplace`` off, or take the function of the same name without it."""
    target: Any = node.target
    name = getattr(target, "__name__", "")
    plain = getattr(functional, name[:-1], None) or getattr(torch, name[:-1], None)
    if name.endswith("_") and not name.startswith("_") and plain is not None:
        node.target = plain
        return True
    try:
        bound = inspect.signature(target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):
        return False
    if not bound.arguments.get("inplace"):
        return False
    bound.arguments["inplace"] = False
    node.args, node.kwargs = bound.args, bound.kwargs
    return True


def _rewire(recording: Recording, node: fx.Node, written: fx.Node) -> None:
    """Let whoever reads the memory that a node wrote to read the node's new value."""
    order = {other: index for index, other in enumerate(recording.graph.nodes)}
    target = recording.values[written]
    earlier = [n for n in order if order[n] < order[node] and n in recording.values]
    for alias in earlier:
        readers = [user for user in alias.users if order[user] > order[node]]
        if not readers or not _overlap(target, recording.values[alias]):
            continue
        value = recording.values[alias]
        if isinstance(value, Tensor) and _lies_as(value, target):
            new = node
        else:
            new = _view_again(recording, alias, written, node)
        for reader in readers:
            reader.replace_input_with(alias, new)


def _view_again(recording: Recording, alias: fx.Node, written: fx.Node, node: fx.Node) -> fx.Node:
    """Return a view of the new value as another value is a view of the old."""
    chain, values = [alias], recording.values
    while chain[-1] is not written:
        sources = [s for s in chain[-1].all_input_nodes if _overlap(values[written], values[s])]
        if len(sources) != 1:
            raise TracingError(
                f"Node {node.name!r} writes to {written.name!r}, of whose memory {alias.name!r} "
                "is another part or view that is read later: let it return a new tensor."
            )
        chain.append(sources[0])
    renewed = {written: node}
    for view in reversed(chain[:-1]):
        with recording.graph.inserting_after([*renewed.values()][-1]):
            again = recording.graph.node_copy(view, lambda part: renewed.get(part, part))
        recording.values[again] = values[view]
        recording.owners[again] = recording.owners[view]
        renewed[view] = again
    return renewed[alias]


def _overlap(written: Any, value: Any) -> bool:
    """Whether a value shares memory with a tensor."""
    if isinstance(value, tuple | list):
        return any(_overlap(written, part) for part in value)
    if isinstance(written, tuple | list):
        return any(_overlap(part, value) for part in written)
    if not isinstance(value, Tensor) or not isinstance(written, Tensor):
        return False
    storage = written.untyped_storage()
    if value.untyped_storage()._cdata != storage._cdata:
        return False
    if value.dtype != written.dtype or _lies_as(value, written):
        return True
    seen = torch.zeros(storage.nbytes() // written.element_size(), dtype=torch.bool)
    seen.as_strided(written.shape, written.stride(), written.storage_offset()).fill_(True)
    return bool(seen.as_strided(value.shape, value.stride(), value.storage_offset()).any())


def _lies_as(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same memory, dimension by dimension."""
    places = [
        (t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride(), t.dtype)
        for t in (one, other)
    ]
    return places[0] == places[1]

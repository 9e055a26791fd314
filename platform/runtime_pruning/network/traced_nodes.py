"""What each node of a recorded graph is to pruning: a layer, an add, a per-channel step, or none.

It also says which convolutions are no sites by their place in the graph.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from torch import fx, nn
from torch.fx.node import map_arg

from runtime_pruning.network import per_channel
from runtime_pruning.network.graph import FxCall, Ref, UnitKind
from runtime_pruning.network.recording import Recording


class TracedNodes:
    """The nodes of a graph, with what they are.

    Attributes:
        nodes: in order.
        shapes: of the tensors, on a few images.
        macs: that a node executes on one image.
    """

    def __init__(self, recording: Recording, backbone: nn.Module) -> None:
        self.nodes = list(recording.graph.nodes)
        self.shapes = recording.shapes
        self.macs = recording.macs
        self._modules = dict(backbone.named_modules(remove_duplicate=False))
        self.head_kind = lru_cache(None)(self._head_kind)
        self.follower = lru_cache(None)(self._follower)

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, if it calls one."""
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def is_conv(self, node: fx.Node) -> bool:
        """Whether a node is a convolution that can be sliced."""
        module = self.module(node)
        return module is not None and per_channel.inherits_forward(module, nn.Conv2d)

    def convs(self) -> list[fx.Node]:
        """Return the convolutions, in order."""
        return [node for node in self.nodes if self.is_conv(node)]

    def describe(self, node: fx.Node) -> str:
        """Return what a node does, for messages."""
        module = self.module(node)
        if module is not None:
            return f"{type(module).__name__} {node.target!r}"
        return getattr(node.target, "__name__", str(node.target))

    def _head_kind(self, node: fx.Node) -> UnitKind | None:
        """Return the kind of unit that the node heads, if it mixes channels or values."""
        module: Any = self.module(node)
        if self.is_conv(node) and len(self.shapes[node]) == 4:
            return "depthwise" if module.groups == module.in_channels > 1 else "convolution"
        if module is not None and per_channel.inherits_forward(module, nn.Linear):
            return "linear"
        parts = [arg for arg in node.args if isinstance(arg, fx.Node)]
        shapes = {self.shapes.get(part, ()) for part in parts}
        same = len(shapes) == 1 and len(next(iter(shapes))) > 1
        if node.target in per_channel.ADDS and len(parts) == 2 and same and not node.kwargs:
            return "add"
        return None

    def _follower(self, node: fx.Node) -> FxCall | None:
        """Return the node as a per-channel step, or None if it is not one."""
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not {source, node} <= self.shapes.keys():
            return None
        if self.macs.get(node):
            return None
        module = self.module(node)
        if module is not None:
            known = per_channel.rule_for(module) is not None or node.meta.get("batch_norm")
            flat = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1)
            alone = known and not flat and len(node.all_input_nodes) == 1
            return FxCall(node.name, "module", node.target) if alone else None
        if node.op not in ("call_function", "call_method"):
            return None
        op: Any = node.op.removeprefix("call_")
        step = FxCall(node.name, op, node.target, with_refs(node.args[1:]), with_refs(node.kwargs))
        return per_channel.per_channel_call(step, self.shapes[source], self.shapes[node])

    # Which convolutions are no sites by their place

    def no_sites(self, logits: fx.Node, *, streams: bool) -> dict[fx.Node, str]:
        """Return the convolutions that are no sites, each with the reason.

        Args:
            logits: what the backbone returns.
            streams: whether convolutions that end in a residual add may be sites.
        """
        found = dict.fromkeys(self._first(), "nothing has been seen before it")
        ends = self.sources(logits, through_adds=True)
        found |= dict.fromkeys(ends, "its channels are the classes")
        adds = [node for node in self.nodes if self.head_kind(node) == "add"]
        for node in adds:
            one, other = cast(list[fx.Node], [p for p in node.args if isinstance(p, fx.Node)])
            around = self._around(one, other) | self._around(other, one)
            found |= dict.fromkeys(around, "it is a shortcut around a residual branch")
            if not streams:
                onto = self.sources(one, through_adds=False)
                onto |= self.sources(other, through_adds=False)
                found |= dict.fromkeys(onto, "it ends in a residual add, and streams stay whole")
        return found

    def sources(self, end: fx.Node, *, through_adds: bool) -> set[fx.Node]:
        """Return the convolutions whose channels reach a node in place."""
        found, seen, stack = set[fx.Node](), set[fx.Node](), [end]
        while stack:
            node = stack.pop()
            kind = self.head_kind(node)
            passes = kind == "depthwise" or (kind == "add" and through_adds)
            if kind == "convolution":
                found.add(node)
            elif node not in seen and (passes or (kind is None and self.follower(node))):
                stack += node.all_input_nodes
            seen.add(node)
        return found

    def _first(self) -> set[fx.Node]:
        """Return the convolutions before which there is none: nothing has been seen there."""
        after = set[fx.Node]()
        for node in self.nodes:
            if any(part in after or self.is_conv(part) for part in node.all_input_nodes):
                after.add(node)
        return set(self.convs()) - after

    def _around(self, end: fx.Node, branch: fx.Node) -> set[fx.Node]:
        """Return the 1x1 convolutions that end in ``end`` and lead around convolutions."""
        candidates = {
            conv
            for conv in self.sources(end, through_adds=False)
            if getattr(self.module(conv), "kernel_size", None) == (1, 1)
        }
        if not candidates:
            return candidates
        upstream = _upstream([branch])
        before = _upstream(
            part for node in upstream if self.is_conv(node) for part in node.all_input_nodes
        )
        return {c for c in candidates - upstream if c.all_input_nodes[0] in before}


def _upstream(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all nodes that their values depend on."""
    seen, stack = set[fx.Node](), list(nodes)
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack += current.all_input_nodes
    return seen


def with_refs(arguments: Any) -> Any:
    """Return nested arguments with fx nodes replaced by references."""
    named: Any = lambda part: Ref(part.name)  # noqa: E731
    return map_arg(arguments, named)


def as_call(node: fx.Node) -> FxCall:
    """Return a node as the head of a unit of which nothing is known."""
    op: Any = "attribute" if node.op == "get_attr" else node.op.removeprefix("call_")
    kwargs: Mapping[str, Any] = dict(with_refs(node.kwargs))
    return FxCall(node.name, op, node.target, with_refs(node.args), kwargs)

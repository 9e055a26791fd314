"""Cut a traced graph into units: find the sites, follow their channels to whoever reads them.

Each value gets a symbolic width. A convolution that decides gives its output a width of its own,
per-channel operations hand it on, a residual add takes the larger of both, convolutions and linear
layers end it. Anything else must not see a pruned value: it is refused by name.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from runtime_pruning.errors import TracingError
from runtime_pruning.network import per_channel
from runtime_pruning.network.graph import FxCall, Graph, Ref, Unit, UnitKind, Value, Width

Shapes: TypeAlias = dict[fx.Node, tuple[int, ...]]

_UNCOUNTED: frozenset[Any] = frozenset(
    {
        *(torch.conv2d, torch.nn.functional.conv2d, torch.nn.functional.linear),
        *(torch.matmul, torch.bmm, torch.einsum, "matmul", "bmm", "__matmul__"),
        torch.nn.functional.scaled_dot_product_attention,
    }
)


def partition(
    graph: fx.Graph, backbone: nn.Module, shapes: Shapes, *, streams: bool = True
) -> Graph:
    """Return the units of a graph, in order of execution.

    Args:
        graph: of the backbone.
        backbone: holds the modules that the graph calls.
        shapes: of each tensor, for one image.
        streams: whether convolutions that end in a residual add are sites.

    Raises:
        TracingError: an operation that pruned channels must not reach, or no site.
    """
    return GraphPartitioner(graph, backbone, shapes, streams).cut()


class GraphPartitioner:
    """Walks one graph and grows the list of its units."""

    def __init__(self, graph: fx.Graph, backbone: nn.Module, shapes: Shapes, streams: bool) -> None:
        self._nodes = list(graph.nodes)
        self._modules = dict(backbone.named_modules(remove_duplicate=False))
        self._shapes = shapes
        self._values: dict[fx.Node, Value] = {}
        self._units: list[Unit] = []
        self._unit_of: dict[fx.Node, int] = {}  # the unit whose output a node is, so far
        self._sites: list[str] = []
        self._logits = self._find_logits()
        self._streams = streams
        self._no_sites = self._first() | self._classes() | self._shortcuts()
        if not streams:
            self._no_sites |= self._onto_streams()

    def cut(self) -> Graph:
        """Return all units."""
        self._refuse_shared_parameters()
        for node in self._nodes:
            self._add_node(node)
        if not self._sites:
            raise TracingError(
                "No site found: a backbone needs a convolution after its first one, with channels "
                "that do not end in its logits."
            )
        logits = self._values[self._logits].name
        images = next(node.name for node in self._nodes if node.op == "placeholder")
        units = _free_early(self._units, keep=logits)
        return Graph(units, images, logits, self._shapes[self._logits][-1], self._streams)

    def _find_logits(self) -> fx.Node:
        """Return the node whose value the backbone returns."""
        (logits,) = self._nodes[-1].args
        if not isinstance(logits, fx.Node) or len(self._shapes.get(logits, ())) != 2:
            raise TracingError(f"A backbone returns logits of shape (B, K), but got {logits!r}.")
        return logits

    # What a node is

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def _is_conv(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), nn.Conv2d)

    def _head_kind(self, node: fx.Node) -> UnitKind | None:
        """Return the kind of unit that the node heads, if it mixes channels or values."""
        module = self._module(node)
        if isinstance(module, nn.Conv2d):
            return "depthwise" if module.groups == module.in_channels > 1 else "convolution"
        if isinstance(module, nn.Linear):
            return "linear"
        parts = [arg for arg in node.args if isinstance(arg, fx.Node)]
        same = len({self._shapes.get(part) for part in parts}) == 1
        if node.target in per_channel.ADDS and len(parts) == 2 and same and not node.kwargs:
            return "add"
        return None

    def _follower(self, node: fx.Node) -> FxCall | None:
        """Return the node as a per-channel step, or None if it is not one."""
        if (
            not node.args
            or not isinstance(node.args[0], fx.Node)
            or node.args[0] not in self._shapes
        ):
            return None
        module = self._module(node)
        if module is not None:
            known = per_channel.rule_for(module) is not None
            flat = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1)
            return FxCall(node.name, "module", node.target) if known and not flat else None
        if node.op not in ("call_function", "call_method"):
            return None
        rest = _with_refs(node.args[1:])
        kwargs = _with_refs(node.kwargs)
        op = node.op.removeprefix("call_")
        step = per_channel.per_channel_call(node.name, op, node.target, rest, kwargs)
        whole = step is not None and not any(_refs((step.args, step.kwargs)))
        return step if whole else None

    # Which convolutions are no sites

    def _first(self) -> set[fx.Node]:
        """Return the convolutions before which there is none: nothing has been seen there."""
        after = set[fx.Node]()
        for node in self._nodes:
            if any(part in after or self._is_conv(part) for part in node.all_input_nodes):
                after.add(node)
        return {node for node in self._nodes if self._is_conv(node)} - after

    def _sources(self, end: fx.Node, *, through_adds: bool) -> set[fx.Node]:
        """Return the convolutions whose channels reach a node in place."""
        found, seen, stack = set[fx.Node](), set[fx.Node](), [end]
        while stack:
            node = stack.pop()
            kind = self._head_kind(node)
            passes = kind == "depthwise" or (kind == "add" and through_adds)
            if kind == "convolution":
                found.add(node)
            elif node not in seen and (passes or (kind is None and self._follower(node))):
                stack += node.all_input_nodes
            seen.add(node)
        return found

    def _classes(self) -> set[fx.Node]:
        """Return the convolutions whose channels are the classes."""
        return self._sources(self._logits, through_adds=True)

    def _shortcuts(self) -> set[fx.Node]:
        """Return the 1x1 convolutions around a residual branch, added to its end."""
        found = set()
        for node in self._nodes:
            if self._head_kind(node) == "add":
                one, other = (part for part in node.args if isinstance(part, fx.Node))
                found |= self._around(one, other) | self._around(other, one)
        return found

    def _around(self, end: fx.Node, branch: fx.Node) -> set[fx.Node]:
        """Return the 1x1 convolutions that end in ``end`` and lead around convolutions."""
        upstream = _upstream(branch)
        learned = (_upstream(conv) - {conv} for conv in upstream if self._is_conv(conv))
        before = set[fx.Node]().union(*learned)
        return {
            conv
            for conv in self._sources(end, through_adds=False) - upstream
            if getattr(self._module(conv), "kernel_size", None) == (1, 1)
            and conv.all_input_nodes[0] in before
        }

    def _onto_streams(self) -> set[fx.Node]:
        """Return the convolutions that end in a residual add."""
        adds = [node for node in self._nodes if self._head_kind(node) == "add"]
        return set[fx.Node]().union(
            *(
                self._sources(part, through_adds=False)
                for node in adds
                for part in node.args
                if isinstance(part, fx.Node)
            )
        )

    # Building units

    def _add_node(self, node: fx.Node) -> None:
        """Give the node a value, as the head of a unit or as a follower of one."""
        if node.op == "placeholder":
            self._values[node] = Value(node.name, Width(self._shapes[node][1]))
        elif node.op != "output":
            kind, step = self._head_kind(node), self._follower(node)
            if kind in ("convolution", "depthwise", "linear"):
                self._add_weighted(node, kind)
            elif kind == "add":
                self._add_add(node)
            elif step is not None:
                self._add_follower(node, step)
            else:
                self._add_opaque(node)

    def _push(self, node: fx.Node, unit: Unit) -> None:
        self._unit_of[node] = len(self._units)
        self._values[node] = unit.output
        self._units.append(unit)

    def _add_weighted(self, node: fx.Node, kind: UnitKind) -> None:
        """Add a convolution or linear layer: this is where widths begin and end."""
        module: Any = self._module(node)
        source = self._values[node.all_input_nodes[0]]
        shape = self._shapes[node]
        grouped = kind == "convolution" and module.groups > 1
        if source.width.pruned and (grouped or (kind == "linear" and len(shape) != 2)):
            self._refuse(node, source)
        width, factor, site = Width(module.weight.shape[0]), 1, None
        if kind == "depthwise":
            width, factor = source.width, source.factor * shape[1] // module.in_channels
        elif kind == "convolution" and not grouped and node not in self._no_sites:
            site = len(self._sites)
            self._sites.append(str(node.target))
            width = Width(width.channels, frozenset({site}))
        # MACs per element of the output, times elements per channel of the output.
        scale = module.weight[0].numel() * factor
        scale *= torch.Size(shape[1:-1] if kind == "linear" else shape[2:]).numel()
        per_input = source.width.pruned and kind != "depthwise"
        unit = Unit(
            kind=kind,
            head=FxCall(node.name, "module", node.target),
            inputs=(source,),
            output=Value(node.name, width, factor),
            site=site,
            mac_scale=scale // source.width.channels if per_input else scale,
            mac_per_input=per_input,
        )
        self._push(node, unit)

    def _add_add(self, node: fx.Node) -> None:
        """Add a residual add: full if a part is, else as wide as the wider part."""
        parts = tuple(self._values[part] for part in node.args if isinstance(part, fx.Node))
        widths = [part.width for part in parts]
        sites = frozenset[int]()
        if all(width.pruned for width in widths):
            sites = widths[0].sites | widths[1].sites
        if len({(part.factor, part.width.channels) for part in parts}) > 1 and sites:
            self._refuse(node, parts[0])
        head = FxCall(node.name, "function", torch.add)
        output = Value(node.name, Width(widths[0].channels, sites), parts[0].factor)
        self._push(node, Unit("add", head, parts, output))

    def _add_follower(self, node: fx.Node, step: FxCall) -> None:
        """Append a per-channel step to the unit before it, or start a unit if others read that."""
        source_node = node.all_input_nodes[0]
        source = self._values[source_node]
        before, after = self._shapes[source_node], self._shapes[node]
        if source.width.pruned and (len(after) < 2 or len(before) < 2):
            self._refuse(node, source)
        factor = source.factor
        if len(after) > 1 and len(before) > 1:
            factor = source.factor * after[1] // before[1]
        step = replace(step, factor=source.factor)
        output = Value(node.name, source.width, factor)
        index = self._unit_of.get(source_node)
        if index is None or len(source_node.users) > 1 or self._units[index].kind == "opaque":
            self._push(node, Unit("follow", None, (source,), output, (step,)))
            return
        unit = self._units[index]
        self._units[index] = replace(unit, output=output, followers=(*unit.followers, step))
        self._unit_of[node] = index
        self._values[node] = output

    def _add_opaque(self, node: fx.Node) -> None:
        """Add an operation of which nothing is known but that its inputs are never pruned."""
        inputs = tuple(self._values[part] for part in node.all_input_nodes)
        for value in inputs:
            if value.width.pruned and not _reads_batch_size(node):
                self._refuse(node, value)
        module = self._module(node)
        weights = () if module is None else module.parameters()
        if node.target in _UNCOUNTED or any(weight.ndim > 1 for weight in weights):
            raise TracingError(
                f"Node {node.name!r} ({_describe(node, module)}) multiplies by weights, but its "
                "MACs cannot be counted: use nn.Conv2d and nn.Linear."
            )
        op: Any = "attribute" if node.op == "get_attr" else node.op.removeprefix("call_")
        args = _with_refs(node.args)
        kwargs = _with_refs(node.kwargs)
        shape = self._shapes.get(node, ())
        output = Value(node.name, Width(shape[1] if len(shape) > 1 else 0))
        head = FxCall(node.name, op, node.target, args, kwargs)
        self._push(node, Unit("opaque", head, inputs, output))

    # Refusals

    def _refuse(self, node: fx.Node, value: Value) -> NoReturn:
        """Raise: pruned channels reach an operation that cannot take them."""
        sites = [self._sites[site] for site in sorted(value.width.sites)]
        raise TracingError(
            f"Node {node.name!r} ({_describe(node, self._module(node))}) cannot take pruned "
            f"channels, but those of {sites} reach it."
        )

    def _refuse_shared_parameters(self) -> None:
        """Raise where a module that holds parameters is called twice."""
        seen: dict[nn.Module, str] = {}
        for node in self._nodes:
            module = self._module(node)
            if module is None or not any(True for _ in module.parameters()):
                continue
            if module in seen:
                raise TracingError(
                    f"Node {node.name!r} calls {node.target!r} again (first: {seen[module]!r}); "
                    "a module with parameters may be called once only."
                )
            seen[module] = node.name


def _free_early(units: list[Unit], keep: str) -> tuple[Unit, ...]:
    """Return the units, each told which values it is the last to read."""
    last = {value.name: index for index, unit in enumerate(units) for value in unit.inputs}
    freed: dict[int, list[str]] = {}
    for name, index in last.items():
        if name != keep:
            freed.setdefault(index, []).append(name)
    return tuple(replace(u, frees=tuple(freed.get(i, ()))) for i, u in enumerate(units))


def _upstream(node: fx.Node) -> set[fx.Node]:
    """Return the node and all nodes that its value depends on."""
    seen, stack = set[fx.Node](), [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack += current.all_input_nodes
    return seen


def _with_refs(arguments: Any) -> Any:
    """Return nested arguments with fx nodes replaced by references."""
    named: Any = lambda part: Ref(part.name)  # noqa: E731
    return map_arg(arguments, named)


def _refs(arguments: Any) -> Iterator[Ref]:
    """Yield the references in nested arguments."""
    if isinstance(arguments, Ref):
        yield arguments
    elif isinstance(arguments, dict):
        yield from _refs(tuple(arguments.values()))
    elif isinstance(arguments, tuple | list):
        for item in arguments:
            yield from _refs(item)


def _reads_batch_size(node: fx.Node) -> bool:
    """Whether a node asks for the number of images and nothing else."""
    if node.target == "size":
        return node.args[1:] == (0,)
    if node.target is getattr and node.args[1:] == ("shape",):
        return all(user.args[1:] == (0,) for user in node.users)
    return False


def _describe(node: fx.Node, module: nn.Module | None) -> str:
    """Return what a node does, for messages."""
    if module is not None:
        return f"{type(module).__name__} {node.target!r}"
    return getattr(node.target, "__name__", str(node.target))

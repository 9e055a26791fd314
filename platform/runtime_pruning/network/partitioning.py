"""Cut a traced graph into units: find the sites, follow their channels to whoever reads them.

Each value gets a symbolic width. A convolution that decides gives its output a width of its own,
per-channel operations hand it on, a residual add takes the larger of both, convolutions and linear
layers end it. Anything else must not see a pruned value: the convolution before it stays whole.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from runtime_pruning.errors import TracingError
from runtime_pruning.network.admission import shared_modules
from runtime_pruning.network.graph import FxCall, Graph, NoSite, Unit, UnitKind, Value, Width
from runtime_pruning.network.recording import Recording
from runtime_pruning.network.traced_nodes import TracedNodes, as_call


def partition(
    recording: Recording,
    backbone: nn.Module,
    *,
    streams: bool = True,
    groups: int = 1,
    calls: Mapping[str, str] | None = None,
) -> Graph:
    """Return the units of a graph, in order of execution.

    Args:
        recording: of the backbone, with no writes in it.
        backbone: holds the modules that the graph calls.
        streams: whether convolutions that end in a residual add are sites.
        groups: a convolution with fewer channels is no site.
        calls: why some modules were not looked into, by their paths.

    Raises:
        TracingError: there is no site.
    """
    nodes = TracedNodes(recording, backbone)
    logits = _find_logits(nodes)
    no_sites = nodes.no_sites(logits, streams=streams) | _narrow(nodes, groups)
    paths = [str(n.target) for n in nodes.nodes if n.op in ("call_module", "get_attr")]
    shared = shared_modules(backbone, paths)
    while True:
        cut = _Partitioner(nodes, logits, no_sites, shared)
        units = cut.units()
        if not cut.whole:
            break
        no_sites |= cut.whole
    told = _told(nodes, backbone, cut.no_sites, calls or {})
    if not any(unit.site is not None for unit in units):
        reasons = "; ".join(f"{no.name!r}: {no.reason}" for no in told[:5])
        raise TracingError(
            "No site found: a backbone needs a convolution after its first one, with channels "
            f"that may be left out ({reasons or 'it has none'})."
        )
    (images,) = [node.name for node in nodes.nodes if node.op == "placeholder"]
    named = cut.values[logits].name
    classes = nodes.shapes[logits][-1]
    return Graph(_free_early(units, keep=named), images, named, classes, streams, groups, told)


def _find_logits(nodes: TracedNodes) -> fx.Node:
    """Return the node whose value the backbone returns."""
    (logits,) = nodes.nodes[-1].args
    if not isinstance(logits, fx.Node) or len(nodes.shapes.get(logits, ())) != 2:
        raise TracingError(f"A backbone returns logits of shape (B, K), but got {logits!r}.")
    return logits


def _narrow(nodes: TracedNodes, groups: int) -> dict[fx.Node, str]:
    """Return the convolutions that have fewer channels than a site has groups."""
    found: dict[fx.Node, str] = {}
    for node in nodes.convs():
        module: Any = nodes.module(node)
        if module.out_channels < groups:
            found[node] = f"it has fewer channels ({module.out_channels}) than groups ({groups})"
    return found


def _told(
    nodes: TracedNodes, backbone: nn.Module, found: Mapping[fx.Node, str], calls: Mapping[str, str]
) -> tuple[NoSite, ...]:
    """Return the convolutions that are no sites with the reasons, in order."""
    named = {str(node.target): reason for node, reason in found.items()}
    for path, reason in calls.items():
        for name, module in backbone.get_submodule(path).named_modules(prefix=path):
            if isinstance(module, nn.Conv2d):
                named[name] = f"it is inside {path!r}: {reason}"
    order = {name: i for i, (name, _) in enumerate(backbone.named_modules())}
    return tuple(
        NoSite(name, named[name]) for name in sorted(named, key=lambda n: order.get(n, len(order)))
    )


class _Partitioner:
    """Walks one graph and grows the list of its units.

    Attributes:
        values: of the nodes.
        no_sites: convolutions that are no sites, with the reasons.
        whole: sites whose channels turned out to reach what needs all of them.
    """

    def __init__(
        self,
        nodes: TracedNodes,
        logits: fx.Node,
        no_sites: Mapping[fx.Node, str],
        shared: Mapping[nn.Module, str],
    ) -> None:
        self.values: dict[fx.Node, Value] = {}
        self.no_sites = dict(no_sites)
        self.whole: dict[fx.Node, str] = {}
        self._nodes = nodes
        self._shapes = nodes.shapes
        self._units: list[Unit] = []
        self._unit_of: dict[fx.Node, int] = {}  # the unit whose output a node is, so far
        self._sites: list[fx.Node] = []
        self._shared = shared

    def units(self) -> list[Unit]:
        """Return all units."""
        for node in self._nodes.nodes:
            self._add_node(node)
        return self._units

    def _add_node(self, node: fx.Node) -> None:
        """Give the node a value, as the head of a unit or as a follower of one."""
        if node.op == "placeholder":
            self.values[node] = Value(node.name, Width(self._shapes[node][1]))
        elif node.op != "output":
            kind, step = self._nodes.head_kind(node), self._nodes.follower(node)
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
        self.values[node] = unit.output
        self._units.append(unit)

    # Which channels stay whole

    def _pruned(self, value: Value) -> bool:
        """Whether channels of a value may be absent: every site that feeds it may leave some."""
        sites = [self._sites[site] for site in value.width.sites]
        return bool(sites) and not any(site in self.whole for site in sites)

    def _keep_whole(self, value: Value, node: fx.Node) -> None:
        """Let a site before a value run all channels, since a node needs them."""
        if self._pruned(value):
            first = self._sites[min(value.width.sites)]
            said = self._shared.get(self._nodes.module(node))  # type: ignore[arg-type]
            because = f", as {said}" if said else ""
            self.whole[first] = (
                f"node {node.name!r} ({self._nodes.describe(node)}) reads its channels and needs "
                f"all of them{because}"
            )

    # Building units

    def _add_weighted(self, node: fx.Node, kind: UnitKind) -> None:
        """Add a convolution or linear layer: this is where widths begin and end."""
        module: Any = self._nodes.module(node)
        source = self.values[node.all_input_nodes[0]]
        shape = self._shapes[node]
        grouped = kind == "convolution" and module.groups > 1
        if grouped or module in self._shared or (kind == "linear" and len(shape) != 2):
            self._keep_whole(source, node)
        pruned = self._pruned(source)
        width, factor, site = Width(module.weight.shape[0]), 1, None
        if kind == "depthwise" and (pruned or shape[1] == module.in_channels):
            width, factor = source.width, source.factor * shape[1] // module.in_channels
        elif kind == "depthwise":
            kind = "convolution"  # nothing to leave out: a grouped one that widens
        elif kind == "convolution":
            site = self._site(node, module)
            width = width if site is None else Width(width.channels, frozenset({site}))
        # MACs per element of the output, times elements per channel of the output.
        scale = module.weight[0].numel() * factor
        scale *= torch.Size(shape[1:-1] if kind == "linear" else shape[2:]).numel()
        per_input = pruned and kind != "depthwise"
        read = module.in_features if kind == "linear" else module.in_channels
        if not pruned and source.width.channels * source.factor != read:
            source = Value(source.name, Width(read))
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

    def _site(self, node: fx.Node, module: Any) -> int | None:
        """Return the index of the site that a convolution is; None where it is none."""
        if module.groups > 1:
            self.no_sites.setdefault(node, f"it has {module.groups} groups")
        if module in self._shared:
            self.no_sites.setdefault(node, self._shared[module])
        if node in self.no_sites:
            return None
        self._sites.append(node)
        return len(self._sites) - 1

    def _add_add(self, node: fx.Node) -> None:
        """Add a residual add: full if a part is, else as wide as the wider part."""
        parts = tuple(self.values[part] for part in node.args if isinstance(part, fx.Node))
        alike = len({(part.factor, part.width.channels) for part in parts}) == 1
        if not alike:  # one at a time: what is whole may be alike
            pruned = [part for part in parts if self._pruned(part)]
            for part in sorted(pruned, key=lambda part: -part.factor)[:1]:
                self._keep_whole(part, node)
        sites = frozenset[int]()
        if alike and all(self._pruned(part) for part in parts):
            sites = parts[0].width.sites | parts[1].width.sites
        head = FxCall(node.name, "function", torch.add)
        output = Value(node.name, Width(self._shapes[node][1]))
        if alike:
            output = Value(node.name, Width(parts[0].width.channels, sites), parts[0].factor)
        self._push(node, Unit("add", head, parts, output))

    def _add_follower(self, node: fx.Node, step: FxCall) -> None:
        """Append a per-channel step to the unit before it, or start a unit if others read that."""
        source_node = node.all_input_nodes[0]
        source = self.values[source_node]
        before, after = self._shapes[source_node], self._shapes[node]
        if len(after) < 2 or len(before) < 2 or self._nodes.module(node) in self._shared:
            self._keep_whole(source, node)
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
        self.values[node] = output

    def _add_opaque(self, node: fx.Node) -> None:
        """Add an operation of which nothing is known but that its inputs are never pruned."""
        inputs = tuple(self.values[part] for part in node.all_input_nodes)
        if not _reads_no_channels(node):
            for value in inputs:
                self._keep_whole(value, node)
        if self._nodes.is_conv(node):
            self.no_sites.setdefault(node, "it is called on a single image")
        shape = self._shapes.get(node, ())
        output = Value(node.name, Width(shape[1] if len(shape) > 1 else 0))
        macs = self._nodes.macs.get(node, 0)
        self._push(node, Unit("opaque", as_call(node), inputs, output, fixed_macs=macs))


def _free_early(units: list[Unit], keep: str) -> tuple[Unit, ...]:
    """Return the units, each told which values it is the last to read."""
    last = {value.name: index for index, unit in enumerate(units) for value in unit.inputs}
    freed: dict[int, list[str]] = {}
    for name, index in last.items():
        if name != keep:
            freed.setdefault(index, []).append(name)
    return tuple(replace(u, frees=tuple(freed.get(i, ()))) for i, u in enumerate(units))


def _reads_no_channels(node: fx.Node) -> bool:
    """Whether a node asks for the number of images, the type or the device, and nothing else."""
    if node.target == "size":
        return node.args[1:] == (0,)
    return node.target is getattr and node.args[1] in ("dtype", "device")

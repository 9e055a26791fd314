"""From a plain CNN to a prunable network: torch.fx gives the graph, one black image its shapes."""

import traceback
from typing import Any

import torch
from torch import Tensor, fx, nn

from runtime_pruning.errors import TracingError
from runtime_pruning.network.partitioning import partition
from runtime_pruning.network.prunable import PrunableNetwork


def trace(
    backbone: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    groups: int = 4,
    align: int = 8,
    streams: bool = True,
) -> PrunableNetwork:
    """Return the backbone made prunable; it owns the backbone's modules, it does not copy them.

    Args:
        backbone: takes images of shape (B, C, H, W), returns logits of shape (B, K).
        image_shape: (C, H, W).
        groups: how many consecutive blocks of channels each site is cut into.
        align: multiple to which group bounds keep; halved at a site until the groups fit.
        streams: whether convolutions that end in a residual add are sites, too. Without them every
            image's stream is whole: half the sites of a ResNet, and statistics that do not vary
            with the plan.

    Raises:
        TracingError: the backbone cannot be made prunable; the message names the node.
    """
    fx_graph = _fx_graph(backbone)
    graph = partition(fx_graph, backbone, _shapes(backbone, fx_graph, image_shape), streams=streams)
    channels, height, width = image_shape
    return PrunableNetwork(backbone, (channels, height, width), graph, groups=groups, align=align)


def _fx_graph(backbone: nn.Module) -> fx.Graph:
    """Return the backbone's graph; it has one placeholder."""
    try:
        graph = fx.Tracer().trace(backbone)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise TracingError(
            f"torch.fx cannot follow {type(backbone).__name__}{_own_line(error)}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    images = [node.name for node in graph.nodes if node.op == "placeholder"]
    if len(images) != 1:
        raise TracingError(f"A backbone takes one argument, its images, but got {images}.")
    return graph


def _own_line(error: BaseException) -> str:
    """Return where in the backbone's own code tracing failed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and f.filename != __file__]
    return f" at `{own[-1].line}` (line {own[-1].lineno})" if own else ""


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph once and keeps the shape of each tensor."""

    def __init__(self, backbone: nn.Module, graph: fx.Graph) -> None:
        super().__init__(backbone, graph=graph, garbage_collect_values=True)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; name it where it fails."""
        try:
            result = super().run_node(n)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise TracingError(
                f"Node {n.name!r} ({n.op} {n.target}) cannot run: {str(error).splitlines()[0]}"
            ) from error
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        return result


def _shapes(
    backbone: nn.Module, graph: fx.Graph, image_shape: tuple[int, int, int]
) -> dict[fx.Node, tuple[int, ...]]:
    """Return each tensor's shape for one black image, in evaluation mode."""
    training = {module: module.training for module in backbone.modules()}
    like = next(backbone.parameters(), torch.empty(0))
    recorder = _ShapeRecorder(backbone.eval(), graph)
    try:
        with torch.no_grad():
            recorder.run(torch.zeros(1, *image_shape, device=like.device, dtype=like.dtype))
    finally:
        for module, mode in training.items():
            module.training = mode
    return recorder.shapes

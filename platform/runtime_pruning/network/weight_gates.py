"""Gates that the filters' own weights open and close, one per removable channel.

A linear layer per convolution reads each filter's weights and gives the channel a score; the gate
is open where the score is above zero. Layers that are tied (a residual stream, a depthwise
convolution) share their channels' gates: their scores are averaged. A closed gate keeps the
channel from being read, which is what surgery does in the end.
Sources: Li et al., "Weight-dependent Gates for Network Pruning", 2020; the surrogate gradient is
that of Liu et al., "Bi-Real Net", ECCV 2018.

Dimensions: B images, C channels of a group, F weights of a filter, K classes, G groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from runtime_pruning.network.surgery import PrunableGroup

_START = 0.5  # score of every gate before training: open, where the surrogate still has a slope
_INITIAL = 0.02  # standard deviation of a score's weights, over the root of their number


class _Binary(torch.autograd.Function):
    """One above zero, else zero; the gradient is a piecewise parabola's."""

    @staticmethod
    def forward(ctx: Any, scores_C: Tensor) -> Tensor:
        ctx.save_for_backward(scores_C)
        return (scores_C > 0).to(scores_C.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (scores_C,) = ctx.saved_tensors
        return gradients[0] * (2 - 2 * scores_C.abs()).clamp(min=0)


def binarised(scores_C: Tensor) -> Tensor:
    """Return gates, 0 or 1, whose slope is ``2 - 2 |score|`` within one of zero, and none beyond.

    The highest score's gate is open in any case: no layer loses all channels.
    """
    gates_C: Tensor = _Binary.apply(scores_C)
    if bool((gates_C > 0).any()):
        return gates_C
    first_C = torch.zeros_like(gates_C)
    first_C[scores_C.argmax()] = 1
    return gates_C + first_C


class GatedBackbone(nn.Module):
    """A backbone whose groups of channels are gated by its own weights.

    Args:
        backbone: trained in place with the gates.
        groups: `prunable_groups` of it; those that share a reader's inputs with other channels are
            left whole.

    Attributes:
        backbone: see above.
        gated: the groups that have gates.
    """

    def __init__(self, backbone: nn.Module, groups: Sequence[PrunableGroup]) -> None:
        super().__init__()
        self.backbone = backbone
        self.groups = tuple(groups)
        self.gated = tuple(group for group in groups if _alone(backbone, group))
        self.scorers = nn.ModuleDict(
            {
                _key(name): _scorer(_weight(backbone, name))
                for group in self.gated
                for name in group.coupled
                if hasattr(backbone.get_submodule(name), "weight")
            }
        )
        self._gates: dict[str, Tensor] = {}
        for group in self.gated:
            for reader in group.readers:
                module = backbone.get_submodule(reader)
                module.register_forward_pre_hook(self._gate(group.name))

    def scores(self) -> dict[str, Tensor]:
        """Return ``scores_C`` by group."""
        return {group.name: self._score(group) for group in self.gated}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ``logits_BK``; closed channels are not read."""
        self._gates = {name: binarised(scores_C) for name, scores_C in self.scores().items()}
        result: Tensor = self.backbone(images_BCHW)
        return result

    def widths(self) -> list[Tensor]:
        """Return ``widths_G``, with gradients: open gates in the last pass, of each group."""
        like = next(self.parameters())
        whole = {group.name: like.new_tensor(float(group.channels)) for group in self.groups}
        return list((whole | {name: g_C.sum() for name, g_C in self._gates.items()}).values())

    def _score(self, group: PrunableGroup) -> Tensor:
        """Return ``scores_C``: the mean over the tied layers."""
        parts = []
        for name in group.coupled:
            if _key(name) in self.scorers:
                filters_CF = _weight(self.backbone, name).flatten(1)
                scaled_CF = filters_CF / (filters_CF.std() + 1e-8)
                parts.append(self.scorers[_key(name)](scaled_CF)[:, 0])
        return torch.stack(parts).mean(0)

    def _gate(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        """Return the hook that closes a group's channels where they are read."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            features, *rest = inputs
            gates_C = self._gates[name].to(features.dtype)
            each = features.shape[1] // len(gates_C)  # several where maps are flattened
            shape = (1, -1, *[1] * (features.ndim - 2))
            return (features * gates_C.repeat_interleave(each).view(shape), *rest)

        return hook


def plain_backbone(gated: GatedBackbone) -> nn.Module:
    """Return the backbone without its gates; they are not to be used afterwards."""
    for module in gated.backbone.modules():
        module._forward_pre_hooks.clear()
    return gated.backbone


def _alone(backbone: nn.Module, group: PrunableGroup) -> bool:
    """Whether whoever reads a group's channels reads no others with them."""
    for reader, each in zip(group.readers, group.inputs, strict=True):
        module: Any = backbone.get_submodule(reader)
        read = getattr(module, "in_features", getattr(module, "in_channels", None))
        if read is not None and read != each * group.channels:
            return False
    return True


def _weight(backbone: nn.Module, name: str) -> Tensor:
    return backbone.get_parameter(f"{name}.weight")


def _scorer(weight: Tensor) -> nn.Linear:
    """Return the layer that scores filters: all open before it has learned."""
    features = weight[0].numel()
    scorer = nn.Linear(features, 1)
    nn.init.normal_(scorer.weight, std=_INITIAL / features**0.5)
    nn.init.constant_(scorer.bias, _START)
    return scorer.to(weight)


def _key(name: str) -> str:
    """Return a layer's name as a module's name may be."""
    return name.replace(".", "/")

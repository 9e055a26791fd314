"""Remove output channels of a plain backbone for good, with all that is tied to them.

Torch-Pruning's dependency graph says what is tied: batch norms, depthwise convolutions, the other
convolutions that are added to the same residual stream, and the inputs of whatever reads them.
What was removed is described by the channels that were kept, as plain lists: the architecture is
built anew from the dense one and that description.
Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.

Dimensions: B images, C channels, H W pixels.
"""

import copy
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from runtime_pruning.backbones.layers import SelectingShortcut, SubsampleShortcut
from runtime_pruning.errors import ConfigError, TracingError, did_you_mean
from runtime_pruning.network.batch_norm import is_conditioned

# The channels that stay, in ascending order, by the name of the layer that a group is known by.
Kept: TypeAlias = dict[str, list[int]]

_WEIGHTED = (nn.Conv2d, nn.Linear)
_KEPT = "kept_channels"  # an attribute of a backbone after surgery, which copies keep
_ALIKE = 1e-4  # of the largest logit: how far rounding may carry two orders of summation apart


@dataclass(frozen=True)
class PrunableGroup:
    """Channels that can be removed one by one, whatever is removed elsewhere.

    Attributes:
        name: the layer that the group is known by: the first of them.
        channels: how many there are.
        coupled: layers whose output channel c goes wherever channel c of the first one goes, the
            first included, in the backbone's order.
        readers: layers whose inputs go with them.
        inputs: of each reader, that one channel takes along: several where maps are flattened.
    """

    name: str
    channels: int
    coupled: tuple[str, ...]
    readers: tuple[str, ...]
    inputs: tuple[int, ...]


class Pruned(NamedTuple):
    """A backbone after surgery, and what it takes to build one like it from the dense one."""

    backbone: nn.Module
    kept: Kept


def kept_channels(backbone: nn.Module) -> Kept:
    """Return what surgery has kept of a backbone so far; empty where there was none."""
    return dict(getattr(backbone, _KEPT, {}))


def prunable_groups(
    backbone: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[PrunableGroup, ...]:
    """Return the groups of channels that can be removed independently, in the backbone's order.

    Args:
        backbone: takes images of shape (B, C, H, W), returns logits of shape (B, K). It is not
            changed.
        image_shape: (C, H, W).

    Raises:
        TracingError: the dependencies cannot be found.
    """
    return tuple(_Surgeon(backbone, image_shape).groups.values())


def channel_scores(
    backbone: nn.Module, image_shape: tuple[int, int, int], *, norm: Literal[1, 2] = 2
) -> dict[str, Tensor]:
    """Return the norm of the weights that go with each channel: ``scores_C`` by group.

    All layers of a group count alike, those that read the channel too. A group's mean is 1, so
    that scores of several groups can be compared.

    Args:
        backbone: is not changed.
        image_shape: (C, H, W).
        norm: sum of absolute values, or of squares.

    Raises:
        TracingError: the dependencies cannot be found.
    """
    return _Surgeon(backbone, image_shape).scores(norm)


def pruned(
    backbone: nn.Module, image_shape: tuple[int, int, int], keep: Mapping[str, Sequence[int]]
) -> Pruned:
    """Return a copy of the backbone without the channels that are not kept.

    What is left computes what the backbone computes when these channels are not read; that is
    seen to before it is returned.

    Args:
        backbone: is not changed; the copy has its device and mode. May have had surgery before:
            the description that is returned counts from the dense one all the same.
        image_shape: (C, H, W).
        keep: channels that stay, by the name of a `PrunableGroup`; a group that is not named stays
            whole.

    Raises:
        ConfigError: a name that is no group's, no channel kept, or one that there is not.
        TracingError: the dependencies cannot be found, or surgery would change the function.
    """
    surgeon = _Surgeon(backbone, image_shape)
    kept = surgeon.checked(keep)
    removed = {
        name: sorted(set(range(surgeon.groups[name].channels)) - set(channels))
        for name, channels in kept.items()
    }
    images_BCHW = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0))
    images_BCHW = images_BCHW.to(surgeon.device)
    with torch.no_grad():
        expected_BK = surgeon.unread(removed)(images_BCHW)
        result = surgeon.cut(removed)
        logits_BK = result(images_BCHW)
    if not torch.allclose(logits_BK, expected_BK, atol=_ALIKE * float(expected_BK.abs().max())):
        raise TracingError(
            "Removing channels changes what the backbone computes beyond them: the worst logit is "
            f"off by {float((logits_BK - expected_BK).abs().max()):.3g}. Something reads channels "
            "by their place (a pad or a slice of them, a norm over them); leave these groups whole."
        )
    for module, original in zip(result.modules(), backbone.modules(), strict=True):
        module.training = original.training
    before = kept_channels(backbone)
    kept = {
        name: [before[name][channel] for channel in kept[name]] if name in before else kept[name]
        for name in kept
    }
    setattr(result, _KEPT, before | kept)
    return Pruned(result, before | kept)


def rebuild_pruned(
    backbone: nn.Module, image_shape: tuple[int, int, int], kept: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Return the architecture that `pruned` described, ready to load its ``state_dict``.

    Args:
        backbone: a dense one, whatever its weights.
        image_shape: (C, H, W).
        kept: as `pruned` returned it, through JSON or not.

    Raises:
        ConfigError: the description is of another backbone.
    """
    return pruned(backbone, image_shape, kept).backbone


class _Surgeon:
    """One backbone on the table.

    Attributes:
        groups: by name, in the backbone's order.
        device: of the backbone.
    """

    def __init__(self, backbone: nn.Module, image_shape: tuple[int, int, int]) -> None:
        if any(is_conditioned(module) for module in backbone.modules()):
            raise TracingError(
                "Surgery needs a plain backbone, but this one keeps batch-norm statistics for "
                "several widths: give the dense one."
            )
        self.device = next(backbone.parameters()).device
        self._tp: Any = importlib.import_module("torch_pruning")
        self._backbone = _with_stand_ins(copy.deepcopy(backbone)).eval()
        self._names = {module: name for name, module in self._backbone.named_modules()}
        self._graph = self._dependencies(torch.zeros(1, *image_shape, device=self.device))
        self.groups = dict(self._find_groups())

    def _dependencies(self, image_1CHW: Tensor) -> Any:
        """Return Torch-Pruning's graph."""
        graph = self._tp.DependencyGraph()
        with _all_with_gradient(self._backbone), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return graph.build_dependency(self._backbone, image_1CHW)
            except Exception as error:  # of any kind: the graph is built by foreign code
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise TracingError(f"The backbone's dependencies cannot be found: {reason}") from (
                    error
                )

    def _group(self, name: str, channels: Sequence[int]) -> Any:
        """Return Torch-Pruning's group that removes output channels of a layer."""
        layer = self._backbone.get_submodule(name)
        pruner = self._graph.get_pruner_of_module(layer)
        return self._graph.get_pruning_group(layer, pruner.prune_out_channels, list(channels))

    def _find_groups(self) -> Iterator[tuple[str, PrunableGroup]]:
        """Yield the groups whose layers agree on which channel is which."""
        seen: set[str] = set()
        for name, layer in self._backbone.named_modules():
            known = layer in self._graph.module2node and name not in seen
            if not known or not isinstance(layer, _WEIGHTED) or name in _shortcuts(self._backbone):
                continue
            every = list(range(layer.weight.shape[0]))
            found = self._group(name, every)
            written = list(self._written(found))
            seen.update(other for other, _ in written)
            whole = all(channels == every for _, channels in written)
            if whole and self._is_free(found):
                coupled = {other for other, _ in written}
                inputs = {other: len(read) // len(every) for other, _, read in self._read(found)}
                order = list(self._names.values())
                readers = tuple(own for own in order if own in inputs)
                group = PrunableGroup(
                    name,
                    len(every),
                    coupled=tuple(own for own in order if own in coupled),
                    readers=readers,
                    inputs=tuple(inputs[own] for own in readers),
                )
                yield name, group

    def _written(self, group: Any) -> Iterator[tuple[str, list[int]]]:
        """Yield the weighted layers that lose output channels, and which."""
        for dep, channels in group:
            module = dep.target.module
            if isinstance(module, _WEIGHTED) and self._graph.is_out_channel_pruning_fn(dep.handler):
                yield self._names[module], sorted(channels)

    def _read(self, group: Any) -> Iterator[tuple[str, nn.Module, list[int]]]:
        """Yield the weighted layers that lose input channels of their own, and which."""
        for dep, channels in group:
            module = dep.target.module
            out = self._graph.is_out_channel_pruning_fn(dep.handler)  # a depthwise layer's are both
            if isinstance(module, _WEIGHTED) and not out:
                yield self._names[module], module, list(channels)

    def _is_free(self, group: Any) -> bool:
        """Whether nothing needs all channels: no logits, no convolution in groups."""
        for dep, _ in group:
            module = dep.target.module
            if self._graph.is_out_channel_pruning_fn(dep.handler) and not dep.target.outputs:
                return False
            grouped = isinstance(module, nn.Conv2d) and module.groups > 1
            if grouped and not module.groups == module.in_channels == module.out_channels:
                return False
        return True

    def checked(self, keep: Mapping[str, Sequence[int]]) -> Kept:
        """Return what is kept, whole groups left out, or raise `ConfigError`."""
        kept: Kept = {}
        for name, channels in keep.items():
            group = self.groups.get(name)
            if group is None:
                raise ConfigError(self._unknown(name))
            chosen = sorted(channels)
            if not chosen or len(set(chosen)) < len(chosen):
                raise ConfigError(
                    f"Layer {name!r} must keep at least one channel, each once, but got {chosen}."
                )
            if chosen[0] < 0 or chosen[-1] >= group.channels:
                raise ConfigError(
                    f"`0 <= channel < {group.channels}` must hold for what layer {name!r} keeps, "
                    f"but got {chosen}."
                )
            if len(chosen) < group.channels:
                kept[name] = [int(channel) for channel in chosen]
        return {name: kept[name] for name in self.groups if name in kept}

    def _unknown(self, name: str) -> str:
        """Return why a name is no group's."""
        for group in self.groups.values():
            if name in group.coupled:
                return f"Layer {name!r} loses what {group.name!r} loses: name that one."
        return (
            f"No channels of layer {name!r} can be removed; of these they can: "
            f"{', '.join(self.groups)}.{did_you_mean(name, self.groups)}"
        )

    @torch.no_grad()
    def scores(self, norm: int) -> dict[str, Tensor]:
        """Return ``scores_C`` by group."""
        for name in _shortcuts(self._backbone):  # which have no weights that anybody learned
            self._backbone.get_parameter(f"{name}.weight").zero_()
        score = self._tp.importance.GroupMagnitudeImportance(p=norm)
        groups = self.groups.values()
        return {g.name: score(self._group(g.name, range(g.channels))).cpu() for g in groups}

    def unread(self, removed: Mapping[str, Sequence[int]]) -> nn.Module:
        """Return a copy whose layers do not read the channels."""
        masked = copy.deepcopy(self._backbone)
        with torch.no_grad():
            for name, channels in removed.items():
                for reader, _, read in self._read(self._group(name, channels)):
                    weight: Any = masked.get_submodule(reader).weight
                    weight[:, read] = 0
        return masked

    def cut(self, removed: Mapping[str, Sequence[int]]) -> nn.Module:
        """Remove the channels; return the backbone, with its own shortcuts."""
        for name, channels in removed.items():
            self._group(name, channels).prune()
        return _without_stand_ins(self._backbone)


@contextmanager
def _all_with_gradient(backbone: nn.Module) -> Iterator[None]:
    """Let all parameters have gradients, by which the dependencies are followed."""
    before = {parameter: parameter.requires_grad for parameter in backbone.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)


# A shortcut that pads channels reads and writes them by their place. For the time of the surgery a
# convolution that computes the same stands in: its weights say which channel goes where.


def _shortcuts(backbone: nn.Module) -> list[str]:
    """Return the names of the stand-ins: what they write is never removed on its own account."""
    named = backbone.named_modules()
    return [name for name, module in named if isinstance(module, SelectingShortcut)]


def _with_stand_ins(backbone: nn.Module) -> nn.Module:
    """Replace the shortcuts by convolutions, in place."""
    like = next(backbone.parameters())
    for name, module in list(backbone.named_modules()):
        if isinstance(module, SubsampleShortcut):
            front, behind = module.pad_front, module.planes - module.in_planes - module.pad_front
            sources = [-1] * front + list(range(module.in_planes)) + [-1] * behind
            stand_in = SelectingShortcut(module.in_planes, sources)
            backbone.set_submodule(name, stand_in.to(like))
    return backbone


def _without_stand_ins(backbone: nn.Module) -> nn.Module:
    """Replace the convolutions that lost no channel by the shortcuts that they stood in for."""
    for name in _shortcuts(backbone):
        found: Any = backbone.get_submodule(name)
        planes, in_planes = found.weight.shape[:2]
        sources, like = found.sources_C, found.weight
        backbone.set_submodule(name, _shortcut(in_planes, planes, sources).to(like))
    return backbone


def _shortcut(in_planes: int, planes: int, sources_C: list[int]) -> nn.Module:
    """Return the shortcut that continues channels; the plain one where nothing is lost."""
    if planes >= in_planes and (planes - in_planes) % 2 == 0:
        front = (planes - in_planes) // 2
        if sources_C == [-1] * front + list(range(in_planes)) + [-1] * front:
            return SubsampleShortcut(in_planes, planes)
    return SelectingShortcut(in_planes, sources_C)

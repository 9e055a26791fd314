"""Removed channels are gone, tied layers lose the same, and what is left computes the same."""

import copy
import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning import backbones
from runtime_pruning.backbones.layers import SelectingShortcut
from runtime_pruning.errors import ConfigError, TracingError
from runtime_pruning.network import trace
from runtime_pruning.network.surgery import prunable_groups, pruned, rebuild_pruned

DIGITS = (1, 8, 8)
CIFAR = (3, 32, 32)


def lively(backbone: nn.Module) -> nn.Module:
    """Return the backbone with batch norms that shift and scale, as trained ones do."""
    generator = torch.Generator().manual_seed(3)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                drawn = torch.rand(tensor.shape, generator=generator) + 0.1
                tensor.data = drawn.to(tensor.device)
    return backbone.eval()


def created(name: str, shape: tuple[int, int, int]) -> nn.Module:
    return lively(backbones.create(name, num_classes=10, image_shape=shape))


def silenced(backbone: nn.Module, channels: dict[str, list[int]]) -> nn.Module:
    """Return a copy in which batch norms give zero on some channels: removed, but not gone."""
    silent = copy.deepcopy(backbone)
    for name, gone in channels.items():
        norm: Any = silent.get_submodule(name)
        norm.weight.data[gone] = 0
        norm.bias.data[gone] = 0
    return silent


def images(shape: tuple[int, int, int], batch: int = 3) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_alike(one: nn.Module, other: nn.Module, shape: tuple[int, int, int]) -> None:
    torch.testing.assert_close(one(images(shape)), other(images(shape)), rtol=1e-4, atol=1e-5)


class Separable(nn.Sequential):
    """A depthwise convolution between two plain ones, then a flatten that interleaves pixels."""

    def __init__(self) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["expand"] = nn.Conv2d(1, 6, 1, bias=False)
        parts["norm1"] = nn.BatchNorm2d(6)
        parts["depthwise"] = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        parts["norm2"] = nn.BatchNorm2d(6)
        parts["project"] = nn.Conv2d(6, 4, 1, bias=False)
        parts["norm3"] = nn.BatchNorm2d(4)
        parts["pool"] = nn.AvgPool2d(4)
        parts["flatten"] = nn.Flatten()
        parts["linear"] = nn.Linear(4 * 4, 3)
        super().__init__(parts)


def test_a_chain_computes_what_it_did_with_the_channels_silenced() -> None:
    dense = created("digits-cnn", DIGITS)
    result = pruned(dense, DIGITS, {"conv2": [0, 3, 15], "conv4": list(range(30))})
    silent = silenced(
        dense, {"bn2": [c for c in range(16) if c not in (0, 3, 15)], "bn4": [30, 31]}
    )
    assert_alike(result.backbone, silent, DIGITS)
    shapes = {name: tuple(p.shape) for name, p in result.backbone.named_parameters()}
    assert shapes["conv2.weight"] == (3, 8, 3, 3)
    assert shapes["conv3.weight"] == (16, 3, 3, 3)
    assert shapes["bn2.weight"] == (3,)
    assert shapes["linear.weight"] == (10, 30)
    assert result.kept == {"conv2": [0, 3, 15], "conv4": list(range(30))}


def test_a_stream_is_pruned_in_all_layers_that_add_to_it_and_each_stream_by_itself() -> None:
    """Channel c of the first stream goes on as channel c + 8 of the second."""
    dense = created("resnet20-cifar", CIFAR)
    keep = {"conv1": [0, 1, 5, 15], "layer2.0.conv2": [7, 8, 9, 20, 23, 24, 31]}
    result = pruned(dense, CIFAR, keep)
    first = [c for c in range(16) if c not in keep["conv1"]]
    second = [c for c in range(32) if c not in keep["layer2.0.conv2"]]
    silent = silenced(
        dense,
        {
            **{name: first for name in ("bn1", *(f"layer1.{i}.bn2" for i in range(3)))},
            **{f"layer2.{i}.bn2": second for i in range(3)},
        },
    )
    for i in range(1, 3):  # what the shortcut still brings to a removed channel is not read
        weight: Any = silent.get_submodule(f"layer2.{i}.conv1").weight
        weight.data[:, second] = 0
    weight = silent.get_submodule("layer3.0.conv1").weight
    weight.data[:, second] = 0
    silent_forward(silent, second)
    assert_alike(result.backbone, silent, CIFAR)
    shortcut: Any = result.backbone.get_submodule("layer2.0.shortcut")
    # Of 7, 8, 9, 20, 23, 24, 31 minus 8: -1, 0, 1, 12, 15, 16, 23; 12 is gone, 16 never was.
    assert isinstance(shortcut, SelectingShortcut)
    assert shortcut.sources_C == [-1, 0, 1, -1, 3, -1, -1]
    assert not shortcut.weight.requires_grad


def silent_forward(silent: nn.Module, second: list[int]) -> None:
    """Let the shortcut into the third layer bring zeros from channels that are gone."""
    shortcut = silent.get_submodule("layer3.0.shortcut")
    forward = shortcut.forward

    def without(features_BCHW: Tensor) -> Tensor:
        features_BCHW = features_BCHW.clone()
        features_BCHW[:, second] = 0
        result: Tensor = forward(features_BCHW)
        return result

    shortcut.forward = without  # type: ignore[method-assign]


def test_a_depthwise_layer_goes_with_the_layer_before_it_and_a_flatten_is_followed() -> None:
    dense = lively(Separable())
    (first, last) = prunable_groups(dense, DIGITS)
    assert first.coupled == ("expand", "depthwise")
    assert first.readers == ("project",)
    assert (last.name, last.channels, last.readers) == ("project", 4, ("linear",))
    result = pruned(dense, DIGITS, {"expand": [1, 4], "project": [3]})
    silent = silenced(dense, {"norm1": [0, 2, 3, 5], "norm2": [0, 2, 3, 5], "norm3": [0, 1, 2]})
    assert_alike(result.backbone, silent, DIGITS)
    depthwise: Any = result.backbone.get_submodule("depthwise")
    assert (depthwise.groups, depthwise.in_channels) == (2, 2)
    assert tuple(result.backbone.get_parameter("linear.weight").shape) == (3, 4)


@pytest.mark.parametrize("name", ["resnet20-cifar", "faces-cnn"])
def test_built_anew_from_its_description_it_gives_the_same_logits(name: str) -> None:
    dense = created(name, CIFAR)
    groups = prunable_groups(dense, CIFAR)
    keep = {group.name: range(0, group.channels, 3) for group in groups}
    result = pruned(dense, CIFAR, keep)
    kept = json.loads(json.dumps(result.kept))
    other = backbones.create(name, num_classes=10, image_shape=CIFAR, seed=9)
    again = rebuild_pruned(other, CIFAR, kept).eval()
    again.load_state_dict(result.backbone.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images(CIFAR)), result.backbone(images(CIFAR)))
    twice = pruned(result.backbone, CIFAR, {groups[0].name: [0]})
    assert twice.backbone.get_parameter(f"{groups[0].name}.weight").shape[0] == 1
    trace(result.backbone, CIFAR, groups=1)


def test_the_dense_backbone_is_left_as_it_was() -> None:
    dense = created("resnet20-cifar", CIFAR).train()
    dense.get_parameter("linear.bias").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    result = pruned(dense, CIFAR, {"conv1": [2]})
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    assert dense.training
    assert all(module.training for module in result.backbone.modules())
    assert not result.backbone.get_parameter("linear.bias").requires_grad
    nothing = pruned(dense, CIFAR, {"conv1": range(16)})
    assert nothing.kept == {}
    assert str(nothing.backbone) == str(dense)


class ByPlace(nn.Module):
    """Adds the first channels of one convolution to another's, which no dependency graph sees."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 6, 3, padding=1)
        self.linear = nn.Linear(6, 3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        narrow = self.one(images_BCHW)
        wide = self.two(narrow) + functional.pad(narrow, (0, 0, 0, 0, 1, 1))
        result: Tensor = self.linear(wide.mean((2, 3)))
        return result


def test_channels_that_are_read_by_their_place_are_no_group_or_are_refused() -> None:
    dense = ByPlace().eval()
    for group in prunable_groups(dense, DIGITS):
        with pytest.raises(TracingError):
            pruned(dense, DIGITS, {group.name: [0]})


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"conv5": [0]}, r"'conv5' can be removed; .*conv1, conv2.*Did you mean"),
        ({"linear": [0]}, "No channels of layer 'linear'"),
        ({"conv1": []}, "at least one channel"),
        ({"conv1": [0, 0]}, "each once"),
        ({"conv1": [8]}, r"`0 <= channel < 8` must hold for what layer 'conv1' keeps"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(keep: dict[str, list[int]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pruned(created("digits-cnn", DIGITS), DIGITS, keep)


def test_a_coupled_layer_is_named_with_its_group() -> None:
    with pytest.raises(ConfigError, match="loses what 'conv1' loses"):
        pruned(created("resnet20-cifar", CIFAR), CIFAR, {"layer1.0.conv2": [0]})


def test_statistics_per_width_are_refused() -> None:
    network = trace(created("digits-cnn", DIGITS), DIGITS).condition_batch_norm()
    with pytest.raises(TracingError, match="give the dense one"):
        prunable_groups(network.backbone, DIGITS)

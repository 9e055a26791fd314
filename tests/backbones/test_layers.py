"""Shared modules by hand: pixel normalisation, shortcuts, stacks of convolutions."""

import pytest
import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.backbones.layers import SelectingShortcut, conv_stack
from runtime_pruning.errors import ConfigError


def test_a_shortcut_keeps_each_second_pixel_and_pads_both_ends() -> None:
    image_BCHW = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    out_BCHW = backbones.SubsampleShortcut(1, 5)(image_BCHW)
    assert out_BCHW.shape == (1, 5, 2, 2)
    assert out_BCHW[0, 2].tolist() == [[1, 3], [7, 9]]
    assert out_BCHW.sum() == 1 + 3 + 7 + 9


@pytest.mark.parametrize(("in_planes", "planes"), [(16, 8), (16, 17)])
def test_a_shortcut_that_cannot_pad_evenly_is_refused(in_planes: int, planes: int) -> None:
    with pytest.raises(ConfigError, match=f"in_planes={in_planes}, planes={planes}"):
        backbones.SubsampleShortcut(in_planes, planes)


def test_pixels_are_normalised_and_the_constants_stay_out_of_the_state() -> None:
    normalise = backbones.Normalise([0.5, 0.2], [0.25, 0.1])
    image_BCHW = torch.tensor([1.0, 0.1]).view(1, 2, 1, 1)
    assert normalise(image_BCHW).flatten().tolist() == pytest.approx([2.0, -1.0])
    assert normalise.state_dict() == {}
    assert normalise.to(torch.bfloat16).mean_C11.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [([0.5], [0.5, 0.5], r"`len\(mean\) == len\(std\)`"), ([0.5], [0.0], "`std > 0`")],
)
def test_impossible_constants_are_refused(
    mean: list[float], std: list[float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        backbones.Normalise(mean, std)


def test_what_is_left_of_each_channel_goes_where_it_went_before() -> None:
    image_BCHW = torch.arange(1.0, 19.0).view(1, 2, 3, 3)
    out_BCHW = SelectingShortcut(2, [1, -1, 0])(image_BCHW)
    assert out_BCHW[0].tolist() == [[[10, 12], [16, 18]], [[0, 0], [0, 0]], [[1, 3], [7, 9]]]


@pytest.mark.parametrize("sources_C", [[], [2], [-2, 0]])
def test_a_channel_that_continues_none_of_the_input_is_refused(sources_C: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"`-1 <= source < 2` must hold for each channel"):
        SelectingShortcut(2, sources_C)


def test_a_stack_pools_behind_the_named_convolutions_only() -> None:
    stack = nn.Sequential(conv_stack(1, (4, 6), pools=(2,)))
    assert list(dict(stack.named_children())) == [
        *("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "pool2")
    ]
    assert stack(torch.rand(2, 1, 8, 8)).shape == (2, 6, 4, 4)

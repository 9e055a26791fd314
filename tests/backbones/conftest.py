"""Counts what a backbone multiplies, from the shapes at each call."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

from runtime_pruning import backbones


class Executed(NamedTuple):
    conv: int  # MACs
    linear: int


@pytest.fixture
def executed_macs() -> Callable[[str, tuple[int, int, int]], Executed]:
    """Count the MACs of one image of a shape through a backbone of a name."""

    def count_of(name: str, image_shape: tuple[int, int, int]) -> Executed:
        backbone = backbones.create(name, num_classes=10, image_shape=image_shape)
        conv, linear = [], []

        def count(module: nn.Module, _: object, out: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                conv.append(module.weight.numel() * out.shape[2] * out.shape[3])
            elif isinstance(module, nn.Linear):
                linear.append(module.weight.numel())

        for module in backbone.modules():
            module.register_forward_hook(count)
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, *image_shape))
        return Executed(sum(conv), sum(linear))

    return count_of

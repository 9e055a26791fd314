"""Layers at all their widths, against plain PyTorch on each image's own."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from runtime_pruning.executor.batching import ragged_layers
from runtime_pruning.executor.batching.ragged_layers import RaggedLinear
from runtime_pruning.executor.batching.width_table import WidthTable
from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.executor.ir.operations import Operation
from runtime_pruning.executor.native import library
from runtime_pruning.executor.program.binder import Binder
from runtime_pruning.network import PrunableNetwork, trace


class Wide(nn.Module):
    """A site of 16 channels before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.site = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 16, 1)
        self.linear = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.site(self.first(images)).relu().mean((2, 3)))


@pytest.fixture
def layer() -> tuple[RaggedLinear, nn.Linear]:
    if library.functions(torch.float32) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    torch.manual_seed(0)
    network: PrunableNetwork = trace(Wide().eval(), (1, 2, 2), groups=4, align=4).eval()
    lowered = lower(network, fused=True)
    operations: list[Operation] = [op for stage in lowered.stages for op in stage]
    (op,) = (op for op in operations if op.kind == "linear")
    slots = {value.output.name: slot for slot, value in enumerate(operations, start=1)}
    binder = Binder(lowered, {lowered.images: 0, **slots}, dtype=torch.float32, fused=True)
    table = WidthTable([site.bounds for site in network.sites], [op.source, op.output])
    return RaggedLinear(op, binder, table, torch.float32), network.backbone.linear


@pytest.mark.parametrize("places", [[0, 3, 1, 3, 2], [2, 2, 2], [3]])
@pytest.mark.parametrize("small", [True, False])  # one by one, or with the weights read once
@torch.inference_mode()
def test_each_image_is_multiplied_by_the_columns_that_it_has(
    layer: tuple[RaggedLinear, nn.Linear],
    places: list[int],
    small: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not small:
        monkeypatch.setattr(ragged_layers, "SMALL", 0)
    ragged, linear = layer
    assert ragged.macs.tolist() == [40, 80, 120, 160]
    features_BC = torch.randn(len(places), 16)
    found = ragged.call(features_BC, np.array(places, dtype=np.int32))
    for row, place in enumerate(places):
        width = 4 * (place + 1)
        expected = functional.linear(
            features_BC[row, :width], linear.weight[:, :width], linear.bias
        )
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_channels_that_an_image_has_not_are_not_read(
    layer: tuple[RaggedLinear, nn.Linear],
) -> None:
    ragged, _ = layer
    features_BC = torch.randn(3, 16)
    places_B = np.array([0, 1, 3], dtype=np.int32)
    expected = ragged.call(features_BC, places_B)
    features_BC[0, 4:], features_BC[1, 8:] = float("nan"), float("nan")
    torch.testing.assert_close(ragged.call(features_BC, places_B), expected)

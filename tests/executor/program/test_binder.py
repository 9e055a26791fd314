"""Operations bound to widths: sliced weights, and MACs counted from what the calls meet."""

import pytest
import torch
from torch import nn

from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.executor.kernels import selection
from runtime_pruning.executor.program.binder import Binder
from runtime_pruning.network import trace
from small_networks import residual


@torch.inference_mode()
def test_a_layer_is_bound_to_the_first_rows_and_columns_of_its_weights() -> None:
    network = residual()
    lowered = lower(network, fused=True)
    first, inside, onto, _ = (op for stage in lowered.stages for op in stage)
    slots = {lowered.images: 0, first.output.name: 1, inside.output.name: 2, onto.output.name: 3}
    binder = Binder(lowered, slots, dtype=torch.float32, fused=True)
    widths = {first.output.name: 4, inside.output.name: 6, onto.output.name: 4}
    layer = binder.layer(inside, widths)
    assert layer.weight.shape == (6, 4, 3, 3)
    assert layer.bias is not None  # batch norm's
    state = [
        None,
        torch.rand(2, 4, 4, 4).relu().contiguous(memory_format=torch.channels_last),
        None,
        None,
        None,
    ]
    bound = binder.bind(inside, 1, widths, state)
    assert bound.macs == 6 * 4 * 9 * 16
    backbone = network.backbone
    whole = backbone.norm(backbone.inside(state[1])).relu()
    torch.testing.assert_close(state[2], whole[:, :6])


class Clamped(nn.Module):
    """Two sites whose sum is clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.one, self.other = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 3, padding=1)
        self.act, self.linear = nn.Hardtanh(-0.2, 0.3), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images)
        return self.linear(self.act(self.one(x) + self.other(x)).mean((2, 3)))


@torch.inference_mode()
def test_a_stream_may_lie_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As oneDNN leaves what it makes of one channel; our own call adds to pixels side by side."""
    monkeypatch.setattr(selection, "IN_BUFFER", 1.0)  # seconds: ours is taken where it runs
    network = trace(Clamped().eval(), (1, 4, 4), groups=2, align=1).eval()
    lowered = lower(network, fused=True)
    operations = [op for stage in lowered.stages for op in stage]
    (index,) = (i for i, op in enumerate(operations) if op.onto is not None)
    op = operations[index]
    assert op.onto is not None
    assert op.conv_output is not None
    slots = {op.source.name: 0, op.onto.name: 1, op.output.name: 2}
    widths = {op.source.name: 2, op.onto.name: 4, op.conv_output.name: 2, op.output.name: 4}
    source = torch.rand(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    stream = torch.rand(3, 4, 4, 4)
    added = op.module(source)[:, :2]
    whole = torch.cat((stream[:, :2] + added, stream[:, 2:]), 1).clamp(-0.2, 0.3)
    state = [source, stream.clone(), None, None]
    bound = Binder(lowered, slots, dtype=torch.float32, fused=True).bind(op, index, widths, state)
    for step in bound.steps:
        state = [source, torch.clone(stream), None, None]
        step(state)
    torch.testing.assert_close(state[2], whole.mean((2, 3)))

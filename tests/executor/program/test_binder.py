"""Operations bound to widths: sliced weights, and MACs counted from what the calls meet."""

import torch

from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.executor.program.binder import Binder
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

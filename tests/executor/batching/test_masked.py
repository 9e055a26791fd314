"""Everything is computed, and absent channels are zeros."""

import torch

from runtime_pruning.executor.batching.masked import present, run_dense
from runtime_pruning.executor.batching.plans import PlanDecider
from runtime_pruning.executor.engine import Engine
from small_networks import residual


def test_which_channels_are_present() -> None:
    programs = Engine(residual(), dtype=torch.float32, channels_last=True, fused=True).programs(3)
    mask = present(programs, frozenset({0}), [[1, 4, 2]], torch.device("cpu"))
    assert mask.present_BC is not None
    assert mask.present_BC.sum(1).tolist() == [2, 8, 4]
    assert mask.present_BC[0].tolist() == [True] * 2 + [False] * 6
    whole = present(programs, frozenset({0}), [[4, 4, 4]], torch.device("cpu"))
    assert (whole.channels, whole.present_BC) == (8, None)


@torch.inference_mode()
def test_executed_macs_are_dense() -> None:
    own = Engine(residual(), dtype=torch.float32, channels_last=True, fused=True)
    images_BCHW, plans_BL = own.enter(torch.rand(2, 1, 4, 4)), torch.tensor([[1], [3]])
    found = run_dense(own.programs(2), images_BCHW, PlanDecider(plans_BL, 4), 1)
    assert list(found.macs) == [76 + 640 * 8] * 2
    assert [tuple(plan) for plan in found.plans] == [(1,), (3,)]

"""A batch that is split where its plans part."""

import torch

from runtime_pruning.executor.batching.plans import PlanDecider
from runtime_pruning.executor.batching.prefix import run_planned_prefix, run_prefix
from runtime_pruning.executor.engine import Engine
from small_networks import residual


@torch.inference_mode()
def test_parts_come_back_in_the_order_of_the_images() -> None:
    network = residual()
    own = Engine(network, dtype=torch.float32, channels_last=True, fused=True)
    images_BCHW = own.enter(torch.rand(5, 1, 4, 4))
    plans_BL = torch.tensor([[3], [1], [3], [2], [1]])
    expected = network.run(images_BCHW, plans_BL)
    plans = PlanDecider(plans_BL, 4)
    for found in (
        run_planned_prefix(own.programs(5), images_BCHW, plans.rows),
        run_prefix(own.programs(5), images_BCHW, plans, 1),
    ):
        torch.testing.assert_close(found.logits_BK, expected.logits_BK)
        assert list(found.macs) == [76 + 640 * width for width in (6, 2, 6, 4, 2)]
        assert [tuple(plan) for plan in found.plans] == [tuple(row) for row in plans_BL.tolist()]

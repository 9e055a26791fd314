"""One pass of a batch in a mode that the test chooses."""

import pytest
import torch

from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.batching.plans import PlanDecider
from runtime_pruning.executor.engine import Engine
from small_networks import residual


def engine(**settings: bool) -> Engine:
    chosen = {"channels_last": True, "fused": True, **settings}
    return Engine(residual(), dtype=torch.float32, **chosen)


@torch.inference_mode()
def test_modes_execute_the_macs_of_their_plans() -> None:
    own, network = engine(), residual()
    images_BCHW = own.enter(torch.rand(3, 1, 4, 4))
    plans_BL = torch.tensor([[1], [4], [2]])
    expected = network.run(images_BCHW, plans_BL)
    for mode in own.modes:
        found = own.planned(images_BCHW, PlanDecider(plans_BL, 4), mode)
        torch.testing.assert_close(found.logits_BK, expected.logits_BK)
        widths = [8, 8, 8] if mode == "dense" else [2, 8, 4]
        assert list(found.macs) == [76 + 640 * width for width in widths]


def test_without_fused_calls_there_is_no_call_for_unlike_plans() -> None:
    assert engine(fused=False).modes == ("image", "prefix", "dense")
    assert engine(channels_last=False).modes == ("image", "prefix", "dense")


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Images of shape \(B, 1, 4, 4\) are needed, but got"):
        engine().enter(torch.rand(3, 4, 4))

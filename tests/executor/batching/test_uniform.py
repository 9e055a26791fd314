"""Images that share a plan, and one image that is decided as it goes."""

import torch
from torch import Tensor

from runtime_pruning.executor.batching.plans import PolicyDecider
from runtime_pruning.executor.batching.uniform import features_of, run_alone, run_uniform
from runtime_pruning.executor.engine import Engine
from small_networks import residual


class Widest:
    """Chooses the third width, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        self.shown.append(features_BF)
        return torch.tensor([3])


@torch.inference_mode()
def test_one_image_is_decided_from_the_means_of_what_its_site_reads() -> None:
    network, chooser = residual(), Widest()
    own = Engine(network, dtype=torch.float32, channels_last=True, fused=True)
    image_1CHW = own.enter(torch.rand(1, 1, 4, 4))
    found = run_alone(own.programs(1), image_1CHW, PolicyDecider(chooser, 1, 4), 1)
    assert (found.plans, list(found.macs)) == ([[3]], [76 + 640 * 6])
    stream_1CHW = network.backbone.first(image_1CHW).relu()
    torch.testing.assert_close(chooser.shown[0], stream_1CHW.mean((2, 3)))
    logits_BK, macs = run_uniform(own.programs(1), image_1CHW, (3,))
    torch.testing.assert_close(logits_BK, found.logits_BK)
    assert macs == 76 + 640 * 6


@torch.inference_mode()
def test_features_of_a_site_are_pooled() -> None:
    own = Engine(residual(), dtype=torch.float32, channels_last=True, fused=True)
    programs = own.programs(2)
    state = programs.new_state(own.enter(torch.rand(2, 1, 4, 4)))
    programs.run(0, (), state)
    stream = state[programs.site_slots[0]]
    torch.testing.assert_close(features_of(programs, 0, state), stream.mean((2, 3)))

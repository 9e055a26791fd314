"""Parts of a batch: sizes, and the same answers."""

from collections.abc import Callable

import pytest
import torch

from deployed_networks import MeanPolicy, close, images, known, plans, traced
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.deployed import DEPLOYED_MODES, DeployedMode, deploy


@torch.no_grad()
@pytest.mark.parametrize("mode", DEPLOYED_MODES)
def test_parts_of_a_batch_return_what_the_whole_returns(mode: DeployedMode) -> None:
    network = traced("mcifarnet", (3, 32, 32))
    whole, cut = deploy(network, part=8), deploy(network, part=3)
    images_BCHW, plans_BL = images(network, 7), plans(network, 7, seed=1)
    policy = MeanPolicy(network.groups)
    for one, other in (
        [d.run(images_BCHW, plans_BL, mode=known(d, mode)) for d in (whole, cut)],
        [d.execute(images_BCHW, policy, mode=mode) for d in (whole, cut)],
    ):
        close(other.logits_BK, one.logits_BK)
        assert torch.equal(other.groups_BL, one.groups_BL)
        assert torch.equal(other.executed_macs_B, one.executed_macs_B)
    assert mode == "image" or len(policy.seen[-1]) == 1  # 3, 3, 1
    close(cut.dense(images_BCHW), network.backbone(images_BCHW))


@torch.no_grad()
def test_a_batch_that_a_compiled_call_takes_apart_is_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then there is nothing to measure; where another call is between, there is."""
    measured: list[int] = []

    def measuring(run: Callable[[int], object], batch: int) -> int:
        measured.append(batch)
        return 2

    monkeypatch.setattr("runtime_pruning.executor.batch_parts.fastest_part", measuring)
    taken = deploy(traced("resnet20-cifar", (3, 16, 16)))
    if "ragged" not in taken.modes:
        pytest.skip("needs a compiler and an x86 CPU")
    assert (taken.parts.size(6), taken.parts.size(6, ragged=True), taken.parts.size(9)) == (6, 6, 9)
    assert measured == []
    plain = deploy(traced("resnet20-cifar", (3, 16, 16)), fused=False)
    assert (plain.parts.size(6), plain.parts.size(9)) == (2, 2)
    assert measured == [6, 9]


def test_a_part_holds_at_least_one_image() -> None:
    with pytest.raises(ConfigError, match="part >= 1"):
        deploy(traced("digits-cnn", (1, 8, 8)), part=0)

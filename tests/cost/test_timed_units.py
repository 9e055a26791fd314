"""A network taken apart into units: each runs again as it ran, and plans visit all their widths."""

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.timed_units import (
    RecordedRun,
    TimedSlicedNetwork,
    covering_plans,
    network_key,
    pair_of,
)
from runtime_pruning.network import PrunableNetwork, trace


@pytest.fixture(scope="module")
def resnet() -> PrunableNetwork:
    shape = (3, 8, 8)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    return trace(backbone, shape).eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_plans_cover_all_pairs_of_widths(name: str) -> None:
    shape = (3, 32, 32)
    network = trace(backbones.create(name, num_classes=10, image_shape=shape), shape).eval()
    sites, full = network.sites, tuple(4 for _ in network.sites)
    with torch.inference_mode():
        steps = TimedSlicedNetwork(network).steps(torch.rand(1, *shape), full)
    plans = covering_plans(steps, sites, seed=0)
    assert len(set(plans)) < 200
    for step in steps:
        if len(step.input.sites) < 2 and len(step.output.sites) < 2:
            seen = {pair_of(step, sites, plan) for plan in plans}
            tied = step.input.sites == step.output.sites
            free = len(step.input.sites | step.output.sites)
            assert len(seen) == 4 ** (1 if tied and free else free), step.name


def test_a_unit_that_runs_again_does_the_same(resnet: PrunableNetwork) -> None:
    images_BCHW, plan = torch.rand(2, 3, 8, 8), tuple(site % 4 + 1 for site in range(18))
    with torch.inference_mode():
        run = RecordedRun(resnet, images_BCHW)
        for groups in plan:
            run.advance(torch.tensor([groups] * 2))
        expected_BK = run.logits_BK.clone()
        for index in range(len(resnet.units)):
            run.replay(index)()
            run.replay(index)()
        assert torch.equal(run.logits_BK, expected_BK)
        steps = TimedSlicedNetwork(resnet).steps(images_BCHW, plan)
    assert [step.name for step in steps] == [unit.output.name for unit in resnet.units]
    assert [step.stage for step in steps if step.kind == "linear"] == [18]


def test_a_network_is_known_by_its_structure(resnet: PrunableNetwork) -> None:
    def key(shape: tuple[int, int, int], groups: int) -> str:
        backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape, seed=7)
        return network_key(trace(backbone, shape, groups=groups))

    assert key((3, 8, 8), 2) == network_key(resnet)  # neither weights nor groups count
    assert key((3, 16, 16), 2) != network_key(resnet)

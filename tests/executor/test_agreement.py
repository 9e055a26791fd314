"""Deployed networks that answer as the network does, and one that does not: it is named."""

import copy

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.errors import ContractError
from runtime_pruning.executor import deploy
from runtime_pruning.executor.agreement import check_modes, check_policy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, RandomPolicy

SHAPE = (3, 16, 16)


def network() -> PrunableNetwork:
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=SHAPE, seed=1)
    return trace(backbone, SHAPE, groups=4, align=4).eval()


def images_and_plans(traced: PrunableNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    plans_BL = torch.randint(1, 5, (4, len(traced.sites)), generator=generator)
    return torch.rand(4, *SHAPE, generator=generator), plans_BL


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_type_of_a_sound_network_agrees(dtype: torch.dtype) -> None:
    traced = network()
    images_BCHW, plans_BL = images_and_plans(traced)
    if dtype == torch.float64:
        traced, images_BCHW = traced.double(), images_BCHW.double()
    fused = None if dtype != torch.float64 else False
    check_modes(deploy(traced, dtype=dtype, fused=fused), traced, images_BCHW, plans_BL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_wrong_mode_is_named_with_its_deviation(dtype: torch.dtype) -> None:
    traced = network()
    wrong = copy.deepcopy(traced)
    with torch.no_grad():
        wrong.backbone.linear.weight.mul_(1.5)
    deployed = deploy(wrong, dtype=dtype)
    first, name = deployed.modes[0], str(dtype).removeprefix("torch.")
    message = rf"Mode '{first}' \({name}, batch 4\).* is off by 0\.[345]\d* of the largest"
    with pytest.raises(ContractError, match=message):
        check_modes(deployed, traced, *images_and_plans(traced))
    with pytest.raises(ContractError, match=message):
        check_policy(deployed, traced, torch.rand(4, *SHAPE), FixedPolicy(traced.uniform(2)))


def test_what_is_no_number_never_agrees() -> None:
    traced = network()
    wrong = copy.deepcopy(traced)
    with torch.no_grad():
        wrong.backbone.linear.weight.fill_(torch.nan)
    with pytest.raises(ContractError, match=r"off by (nan|inf) of the largest"):
        check_modes(deploy(wrong), traced, *images_and_plans(traced))


def test_a_policy_that_decides_otherwise_is_named() -> None:
    traced = network()
    # Each start draws anew: the deployed network gets other plans than the plain one.
    policy = RandomPolicy(4, len(traced.sites), seed=0)
    with pytest.raises(ContractError, match="but chooses others for 4 of 4 images"):
        check_policy(deploy(traced), traced, torch.rand(4, *SHAPE), policy)

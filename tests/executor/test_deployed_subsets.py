"""Subsets deployed: compiled calls answer as plain PyTorch, count what they run, and are chosen."""

import pytest
import torch
from torch import Tensor, nn

from random_networks import salient
from runtime_pruning import backbones
from runtime_pruning.errors import ConfigError, ContractError
from runtime_pruning.executor import deploy
from runtime_pruning.executor.agreement import check_policy
from runtime_pruning.executor.autotuning import measure_policy
from runtime_pruning.executor.native import library
from runtime_pruning.executor.native.poison import poisoned
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.saliency import SubsetPolicy
from small_networks import residual

NATIVE = library.functions(torch.float32) is not None
native = pytest.mark.skipif(not NATIVE, reason="needs compiled kernels")


def images(network: PrunableNetwork, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *network.image_shape, generator=generator)


def named(name: str, shape: tuple[int, int, int]) -> PrunableNetwork:
    backbone = backbones.create(name, num_classes=10, image_shape=shape, seed=0)
    return trace(backbone, shape, groups=2, align=4).eval()


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "shape"), [("resnet20-cifar", (3, 16, 16)), ("digits-cnn", (1, 8, 8))]
)
def test_compiled_subsets_are_those_of_plain_pytorch(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    network = named(name, shape)
    deployed = deploy(network, dtype=dtype)
    assert deployed.subsets.modes == ("subset", "gathered", "masked")
    with poisoned():
        for size in (9, 1):
            check_policy(deployed, network, images(network, size), salient(network, 0))


@native
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_kept_and_spent_is_told_for_each_image(threads: int) -> None:
    torch.set_num_threads(threads)
    network = named("digits-cnn", (1, 8, 8))
    policy, images_BCHW = salient(network, 0), images(network, 19)
    with torch.no_grad():
        expected = network.execute(images_BCHW, policy)
    found = deploy(network).execute(images_BCHW, policy)
    assert found.mode == "subset"
    assert torch.equal(found.channels_BL, expected.channels_BL)
    assert torch.equal(found.total_macs_B, expected.total_macs_B)
    assert found.policy_macs == policy.macs_per_image
    assert (found.channels_BL.float().std(0) > 0).any()
    torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-4, atol=1e-4)


@native
@pytest.mark.parametrize("threshold", [-1.0, 100.0])
def test_all_channels_and_none_are_subsets_too(threshold: float) -> None:
    network = residual()
    policy = salient(network, 0)
    policy.thresholds_L.fill_(threshold)
    deployed = deploy(network)
    with poisoned():
        check_policy(deployed, network, images(network, 3), policy)
    if threshold > 0:  # stem and head alone
        spent_B = deployed.execute(images(network, 3), policy).executed_macs_B
        assert spent_B.tolist() == [4 * 16 + 12] * 3


@native
def test_policies_on_one_network_do_not_mix() -> None:
    network = named("digits-cnn", (1, 8, 8))
    deployed, images_BCHW = deploy(network), images(network, 5)
    for policy in [salient(network, seed) for seed in (0, 1, 0)]:
        with torch.no_grad():
            expected = network.execute(images_BCHW, policy)
        found = deployed.execute(images_BCHW, policy)
        assert torch.equal(found.channels_BL, expected.channels_BL)


class Depthwise(nn.Module):
    """A depthwise convolution stands behind a site: no compiled call takes subsets through it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU()
        )
        self.linear = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.linear(self.body(images).mean((2, 3)))
        return result


def test_a_network_without_compiled_subsets_runs_by_plain_pytorch() -> None:
    network = trace(Depthwise(), (1, 8, 8), groups=2, align=1).eval()
    policy, deployed = salient(network, 0), deploy(network)
    assert deployed.subsets.modes == ("gathered", "masked")
    check_policy(deployed, network, images(network, 4), policy)
    assert deployed.execute(images(network, 4), policy).mode == "gathered"
    with pytest.raises(ConfigError, match=r"'gathered', 'masked'\) here, but got 'subset'"):
        deployed.execute(images(network, 4), policy, mode="subset")


def test_the_mode_is_what_was_measured_and_never_the_dense_network() -> None:
    network = named("digits-cnn", (1, 8, 8))
    policy, deployed = salient(network, 0), deploy(network)
    table = measure_policy(
        deployed, images(network, 4), policy, (4,), rounds=1, least_seconds=0.001
    )
    assert set(table.at(4, 1.0)) == set(deployed.subsets.modes)
    assert deployed.execute(images(network, 4), policy).mode == table.choose(4, 1.0)


def test_a_program_that_keeps_other_channels_is_refused() -> None:
    network = named("digits-cnn", (1, 8, 8))
    policy, deployed = salient(network, 0), deploy(network)
    deployed.execute(images(network, 2), policy)
    if not NATIVE:
        pytest.skip("needs compiled kernels")
    with torch.no_grad():  # behind the back of the program
        policy.branch(0).expand.bias += 0.3
    with pytest.raises(ContractError, match="must keep the channels that plain PyTorch does"):
        check_policy(deployed, network, images(network, 6), policy)
    assert isinstance(policy, SubsetPolicy)

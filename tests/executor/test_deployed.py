"""Deployed networks: each mode returns what the prunable network returns."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deployed_networks import SHAPES, MeanPolicy, close, images, known, plans, traced
from runtime_pruning.cost.macs import dense_macs, plan_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.autotuning import measure_policy
from runtime_pruning.executor.deployed import DEPLOYED_MODES, DeployedMode, DeployedNetwork, deploy
from runtime_pruning.executor.native import build, library
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.batch_norm import is_conditioned
from runtime_pruning.testing.network import shake


@pytest.fixture(scope="module", params=SHAPES)
def network(request: pytest.FixtureRequest) -> PrunableNetwork:
    return traced(request.param, SHAPES[request.param])


@pytest.fixture(scope="module")
def deployed(network: PrunableNetwork) -> DeployedNetwork:
    return deploy(network, part=64)


@pytest.mark.parametrize("mode", DEPLOYED_MODES)
@pytest.mark.parametrize("batch", [1, 8])
@torch.no_grad()
def test_every_mode_returns_what_the_network_returns(
    network: PrunableNetwork, deployed: DeployedNetwork, mode: DeployedMode, batch: int
) -> None:
    images_BCHW = images(network, batch)
    for seed in (3, 3):  # the first makes programs, the second repeats them
        plans_BL = plans(network, batch, seed)
        plans_BL[batch // 2 :, : len(network.sites) // 2] = plans_BL[
            0, : len(network.sites) // 2
        ].clone()
        expected = network.run(images_BCHW, plans_BL)
        before = images_BCHW.clone()
        execution = deployed.run(images_BCHW, plans_BL, mode=known(deployed, mode))
        close(execution.logits_BK, expected.logits_BK)
        assert torch.equal(images_BCHW, before)
        assert torch.equal(execution.groups_BL, expected.groups_BL)
        assert torch.equal(execution.channels_BL, expected.channels_BL)
        assert execution.policy_macs_B.tolist() == [0] * batch
        if mode == "dense":
            assert execution.mode == "dense"
            assert execution.executed_macs_B.tolist() == [dense_macs(network)] * batch
        else:
            macs_B = plan_macs(network, network.channels(plans_BL))
            assert execution.executed_macs_B.tolist() == macs_B.tolist()
            assert torch.equal(execution.executed_macs_B, expected.executed_macs_B)


@pytest.mark.parametrize("mode", DEPLOYED_MODES)
@pytest.mark.parametrize("batch", [1, 8])
@torch.no_grad()
def test_a_policy_sees_the_same_features_in_every_mode(
    network: PrunableNetwork, deployed: DeployedNetwork, mode: DeployedMode, batch: int
) -> None:
    images_BCHW = images(network, batch)
    policy = MeanPolicy(network.groups)
    for _ in range(2):
        policy.seen.clear()
        execution = deployed.execute(images_BCHW, policy, mode=known(deployed, mode))
        seen = list(policy.seen)
        expected = network.run(images_BCHW, execution.groups_BL)
        close(execution.logits_BK, expected.logits_BK)
        assert execution.policy_macs_B.tolist() == [7] * batch
        if mode != "dense":
            assert torch.equal(execution.executed_macs_B, expected.executed_macs_B)
        run = network.start(images_BCHW)
        for site in range(len(network.sites)):
            found = seen[site :: len(network.sites)]
            close(torch.cat(found), run.features_BF)
            run.advance(execution.groups_BL[:, site])
    assert len(set(map(tuple, execution.groups_BL.tolist()))) > 1 or batch == 1


@pytest.mark.parametrize("name", ["digits-cnn", "resnet20-cifar", "mobilenet_v2"])
@torch.no_grad()
def test_plain_calls_return_the_same(name: str) -> None:
    network = traced(name, SHAPES[name])
    deployed = deploy(network, fused=False)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=7)
    expected_BK = network.run(images_BCHW, plans_BL).logits_BK
    for mode in deployed.modes:
        close(deployed.run(images_BCHW, plans_BL, mode=mode).logits_BK, expected_BK)
    close(deployed.dense(images_BCHW), network(images_BCHW))


@torch.no_grad()
def test_dense_and_static_are_the_same_at_full_width(
    network: PrunableNetwork, deployed: DeployedNetwork
) -> None:
    images_BCHW = images(network, 8)
    close(deployed.dense(images_BCHW), network.backbone(images_BCHW))
    full_L = [network.groups] * len(network.sites)
    assert torch.equal(deployed.static(full_L)(images_BCHW), deployed.dense(images_BCHW))
    half_BL = torch.full((8, len(full_L)), 2)
    expected = network.run(images_BCHW, half_BL)
    close(deployed.static(half_BL[0].tolist())(images_BCHW), expected.logits_BK)


@torch.no_grad()
def test_torch_counts_the_same_macs(network: PrunableNetwork) -> None:
    deployed = deploy(network, fused=False)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=5)
    deployed.run(images_BCHW, plans_BL, mode="prefix")
    with FlopCounterMode(display=False) as counter:
        execution = deployed.run(images_BCHW, plans_BL, mode="prefix")
    assert counter.get_total_flops() == 2 * int(execution.executed_macs_B.sum())
    assert int(execution.executed_macs_B.sum()) < 8 * dense_macs(network)


class NormLate(nn.Module):
    """Batch norm once right after its convolution, once behind the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(16)
        self.linear = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(self.first(images))))
        y = torch.relu(self.norm2(self.conv2(x)))
        y = self.norm3(torch.relu(self.conv3(y)))
        return self.linear(y.mean((2, 3)))


@pytest.mark.parametrize("mode", DEPLOYED_MODES)
@torch.no_grad()
def test_statistics_per_width_are_folded_per_width(mode: DeployedMode) -> None:
    torch.manual_seed(4)
    shape = (3, 8, 8)
    network = trace(shake(NormLate(), torch.rand(8, *shape), seed=1), shape, groups=4).eval()
    plain = copy.deepcopy(network)
    network.condition_batch_norm()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and is_conditioned(module):
            module.narrow_means.uniform_(-0.5, 0.5)
            module.narrow_vars.uniform_(0.5, 2.0)
    images_BCHW = images(network, 8)
    for seed in (3, 4):
        plans_BL = plans(network, 8, seed)
        expected_BK = network.run(images_BCHW, plans_BL).logits_BK
        deployed = deploy(network)
        got_BK = deployed.run(images_BCHW, plans_BL, mode=known(deployed, mode)).logits_BK
        close(got_BK, expected_BK)
        assert not torch.allclose(plain.run(images_BCHW, plans_BL).logits_BK, expected_BK)


@torch.no_grad()
def test_bfloat16_is_near() -> None:
    network = traced("resnet20-cifar", (3, 16, 16))
    deployed = deploy(network, dtype=torch.bfloat16)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=6)
    expected_BK = network.run(images_BCHW, plans_BL).logits_BK
    for mode in deployed.modes:
        logits_BK = deployed.run(images_BCHW, plans_BL, mode=mode).logits_BK
        assert logits_BK.dtype == torch.float32
        close(logits_BK, expected_BK, tolerance=0.05)
    close(deployed.dense(images_BCHW), network(images_BCHW), tolerance=0.05)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2, 8, 27])  # of 27 two threads have 4 parts, three have 6
@torch.no_grad()
def test_some_threads_return_the_same(batch: int, threads: int) -> None:
    network = traced("resnet20-cifar", (3, 16, 16))
    deployed = deploy(network, part=batch)
    images_BCHW, plans_BL = images(network, batch), plans(network, batch, seed=6)
    expected = network.run(images_BCHW, plans_BL)
    torch.set_num_threads(threads)
    for mode in deployed.modes:
        found = deployed.run(images_BCHW, plans_BL, mode=mode)
        close(found.logits_BK, expected.logits_BK)
        if mode != "dense":
            assert torch.equal(found.executed_macs_B, expected.executed_macs_B)


@torch.no_grad()
def test_without_a_compiler_the_modes_are_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(build.SETTING, "off")
    library.forget()
    try:
        network = traced("digits-cnn", (1, 8, 8))
        deployed = deploy(network)
        assert "ragged" not in deployed.modes
        images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=6)
        expected_BK = network.run(images_BCHW, plans_BL).logits_BK
        for mode in deployed.modes:
            close(deployed.run(images_BCHW, plans_BL, mode=mode).logits_BK, expected_BK)
        with pytest.raises(ConfigError, match="ragged"):
            deployed.run(images_BCHW, plans_BL, mode="ragged")
    finally:
        library.forget()


@torch.no_grad()
def test_the_other_layout_gives_the_same() -> None:
    network = traced("resnet18", (3, 32, 32))
    deployed = deploy(network, channels_last=False)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=6)
    expected_BK = network.run(images_BCHW, plans_BL).logits_BK
    for mode in deployed.modes:
        close(deployed.run(images_BCHW, plans_BL, mode=mode).logits_BK, expected_BK)


class Odd(nn.Module):
    """Paddings, activations and adds that the fused calls do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.round = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.wide = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.LeakyReLU(0.1)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(8 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.first(images))
        y = self.act(self.norm(self.round(x)))
        z = self.same(y) + self.wide(y)  # both pruned: as wide as the wider
        z = nn.functional.relu6(z) + y
        z = self.drop(z) + z
        return self.linear(torch.flatten(z, 1))


@torch.no_grad()
def test_what_cannot_be_fused_runs_unfused() -> None:
    torch.manual_seed(3)
    shape = (1, 4, 4)
    backbone = shake(Odd(), torch.rand(8, *shape), seed=1)
    network = trace(backbone, shape, groups=4).eval()
    images_BCHW = images(network, 8)
    for seed in range(3):
        plans_BL = plans(network, 8, seed)
        expected = network.run(images_BCHW, plans_BL)
        deployed = deploy(network)
        for mode in deployed.modes:
            execution = deployed.run(images_BCHW, plans_BL, mode=mode)
            close(execution.logits_BK, expected.logits_BK)
            if mode != "dense":
                assert torch.equal(execution.executed_macs_B, expected.executed_macs_B)


@torch.no_grad()
def test_the_network_that_was_deployed_may_change() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    images_BCHW = images(network, 2)
    before_BK = deployed.dense(images_BCHW)
    assert network.backbone.bn1.weight.grad_fn is None
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(deployed.dense(images_BCHW), before_BK)
    assert not torch.allclose(network(images_BCHW), before_BK)


def test_bad_calls_say_what_is_wrong() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    good = torch.full((2, len(network.sites)), 4)
    with pytest.raises(ConfigError, match="`mode` must be one of"):
        deployed.run(images(network, 2), good, mode="masked")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="A plan of shape"):
        deployed.run(images(network, 3), good)
    with pytest.raises(ConfigError, match=r"counts in \[1, 4\] are needed, but got \(5"):
        deployed.run(images(network, 2), good + 1)
    with pytest.raises(ConfigError, match="Images of shape"):
        deployed.dense(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="`mode` must be one of"):  # a plan is run as it is
        deployed.run(images(network, 2), good, mode="full")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`1 <= batch <= images` must hold, but got 3 and 2"):
        measure_policy(deployed, images(network, 2), MeanPolicy(4), (3,))
    with pytest.raises(ConfigError, match="`fused=True` needs a CPU"):
        deploy(network, fused=True, device="meta")


@torch.no_grad()
def test_images_of_any_type_may_follow_one_another() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed, images_BCHW = deploy(network), images(network, 4)
    expected_BK = network.backbone(images_BCHW)
    for dtype in (torch.float64, torch.float32, torch.float64):
        close(deployed.dense(images_BCHW.to(dtype)), expected_BK)

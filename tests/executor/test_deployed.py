"""Deployed networks: each mode returns what the prunable network returns."""

import copy
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs, plan_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor.autotuning import measure_modes, measure_policy, random_plans
from runtime_pruning.executor.commands.command_buffer import CommandBuffer, FreeSlots
from runtime_pruning.executor.commands.instruction import Opcode
from runtime_pruning.executor.deployed import DEPLOYED_MODES, DeployedMode, DeployedNetwork, deploy
from runtime_pruning.executor.kernels import selection
from runtime_pruning.executor.mode_table import ModeTable
from runtime_pruning.executor.native import library
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.batch_norm import is_conditioned
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.testing.network import shake
from runtime_pruning.timing.turns import compared, fastest_part

SHAPES = {
    "digits-cnn": (1, 8, 8),
    "mcifarnet": (3, 16, 16),
    "resnet20-cifar": (3, 16, 16),
    "resnet18": (3, 32, 32),
    "vgg11_bn": (3, 32, 32),
    "mobilenet_v2": (3, 32, 32),
}


def traced(name: str, shape: tuple[int, int, int]) -> PrunableNetwork:
    """Return a network with batch norm and biases that are not neutral."""
    torch.manual_seed(0)
    if name in backbones.names():
        backbone = backbones.create(name, num_classes=10, image_shape=shape)
    else:
        backbone = torchvision.models.get_model(name, num_classes=10)
    images_BCHW = torch.rand(8, *shape, generator=torch.Generator().manual_seed(1))
    return trace(shake(backbone, images_BCHW, seed=1), shape).eval()


@pytest.fixture(scope="module", params=SHAPES)
def network(request: pytest.FixtureRequest) -> PrunableNetwork:
    return traced(request.param, SHAPES[request.param])


@pytest.fixture(scope="module")
def deployed(network: PrunableNetwork) -> DeployedNetwork:
    return deploy(network, part=64)


def images(network: PrunableNetwork, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(batch, *network.image_shape, generator=generator)


def plans(network: PrunableNetwork, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (batch, len(network.sites))
    return torch.randint(1, network.groups + 1, size, generator=generator)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def known(deployed: DeployedNetwork, mode: DeployedMode) -> DeployedMode:
    """Return the mode; skip the test where it cannot run here."""
    if mode not in ("auto", *deployed.modes):
        pytest.skip(f"{mode} cannot run this network on this machine")
    return mode


class MeanPolicy:
    """Looks at the features: more groups where they are larger on average."""

    name = "mean"
    macs_per_image = 7

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.seen: list[Tensor] = []

    def start(self, batch: int) -> "MeanPolicy":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        self.seen.append(features_BF.clone())
        ranks_B = (features_BF.double().mean(1) * 1e3).long()
        return (ranks_B + site) % self.groups + 1


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
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library._library.cache_clear()
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
        library._library.cache_clear()


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


def test_the_mode_is_chosen_by_what_was_measured() -> None:
    network = copy.deepcopy(traced("digits-cnn", (1, 8, 8)))
    deployed = deploy(network)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=3)
    unmeasured = "ragged" if "ragged" in deployed.modes else "prefix"
    assert deployed.run(images_BCHW, plans_BL).mode == unmeasured
    table = measure_modes(deployed, (1, 8), (1.0, 0.5), rounds=1, least_seconds=0.0)
    assert set(table.ratios) == {(1, 1.0), (1, 0.5), (8, 1.0), (8, 0.5)}
    assert set(table.ratios[8, 0.5]) == set(deployed.modes)
    assert all(ratio > 0 for row in table.ratios.values() for ratio in row.values())
    assert table.table().count("\n") == 5
    for mode in ("prefix", "dense", "image"):
        rows = {"image": 2.0, "prefix": 2.0, "dense": 2.0, mode: 0.5}
        deployed.mode_table = type(table)(torch.get_num_threads(), {(8, 0.5): rows})
        assert deployed.run(images_BCHW, plans_BL).mode == mode
        assert deployed.execute(images_BCHW, MeanPolicy(4)).mode == mode
    rows = {"prefix": 0.5, "ragged": 0.51}
    if "ragged" in deployed.modes:  # about as fast, whatever plans meet
        deployed.mode_table = type(table)(torch.get_num_threads(), {(8, 0.5): rows})
        assert deployed.run(images_BCHW, plans_BL).mode == "ragged"
    alike = FixedPolicy([2] * len(network.sites))
    assert deployed.execute(images_BCHW, alike).mode == "prefix"  # nothing to gather: sliced
    deployed.mode_table = type(table)(torch.get_num_threads() + 1, {(8, 0.5): rows})
    assert deployed.run(images_BCHW, plans_BL).mode == unmeasured  # measured with other threads


def test_between_what_was_measured_times_are_interpolated() -> None:
    rows = {(8, 0.5): {"a": 0.5, "b": 0.6}, (8, 1.0): {"a": 1.5, "b": 1.0}, (1, 1.0): {"a": 9.0}}
    table = ModeTable(1, rows)
    assert table.at(8, 0.75) == pytest.approx({"a": 1.0, "b": 0.8})
    assert table.at(6, 0.1) == pytest.approx({"a": 0.5, "b": 0.6})
    assert [table.choose(8, fraction) for fraction in (0.5, 0.55, 0.6, 1.0)] == ["a", "a", "b", "b"]
    assert table.choose(8, 0.5, steady="b") == "a"
    assert table.always(8) is None
    assert ModeTable(1, {key: {**row, "c": 0.1} for key, row in rows.items()}).always(8) == "c"
    assert table.choose(8, 0.57, steady="b") == "b"
    assert table.choose(2, 0.5, steady="b") == "a"


class SlowPolicy(MeanPolicy):
    """Takes its time."""

    seconds = 0.02

    def start(self, batch: int) -> "SlowPolicy":
        time.sleep(self.seconds)
        return self


def test_a_policy_that_costs_more_than_it_saves_is_not_asked() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    images_BCHW = images(network, 8)
    slow = SlowPolicy(4)
    table = measure_policy(deployed, images_BCHW, slow, (1, 8), rounds=1, least_seconds=0.0)
    assert set(table.ratios) == {(1, 1.0), (8, 1.0)}
    assert set(table.ratios[8, 1.0]) == {*deployed.modes, "full"}
    assert min(table.ratios[1, 1.0]["image"], table.ratios[8, 1.0]["dense"]) > 1
    found = deployed.execute(images_BCHW, slow)
    assert found.mode == "full"
    assert torch.equal(found.logits_BK, deployed.dense(images_BCHW))
    assert found.executed_macs_B.tolist() == [deployed.dense_macs] * 8
    assert found.policy_macs_B.tolist() == [0] * 8
    assert (found.groups_BL == network.groups).all()
    assert deployed.execute(images_BCHW, slow, mode="prefix").mode == "prefix"  # as it is told
    assert deployed.execute(images_BCHW, MeanPolicy(4)).mode != "full"  # another policy

    slow.seconds = 0.0  # the table is of the policy as it was, and of so many threads
    assert deployed.execute(images_BCHW, slow).mode == "full"
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert deployed.execute(images_BCHW, slow).mode != "full"


def test_a_policy_runs_in_the_mode_that_was_fastest_for_it() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    policy = MeanPolicy(4)
    rows = dict.fromkeys(("image", "prefix", "dense", "full"), 1.0)
    for mode in ("image", "prefix", "dense"):
        table = ModeTable(torch.get_num_threads(), {(8, 1.0): {**rows, mode: 0.5}})
        deployed.policy_tables[policy] = table
        assert deployed.execute(images(network, 8), policy).mode == mode


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


def test_random_plans_come_near_a_fraction() -> None:
    deployed = deploy(traced("resnet20-cifar", (3, 16, 16)))
    for fraction in (1.0, 0.5, 0.35):
        drawn = random_plans(deployed, fraction, 16, torch.Generator().manual_seed(0))
        mean = sum(map(deployed.fraction, drawn)) / len(drawn)
        assert mean == pytest.approx(fraction, abs=0.04)
    assert len(set(random_plans(deployed, 0.5, 16, torch.Generator().manual_seed(0)))) > 4


def test_a_batch_is_run_in_parts_of_the_size_that_is_fastest() -> None:
    """Fixed time per call, and a penalty beyond what the cache holds: 8 is best of doublings."""
    now = 0.0

    def run(size: int) -> None:
        nonlocal now
        now += 0.1 + size * (0.1 if size <= 8 else 0.4)

    assert fastest_part(run, 100, longest=60.0, clock=lambda: now) == 8
    assert fastest_part(run, 6, longest=60.0, clock=lambda: now) == 6
    assert fastest_part(run, 100, longest=0.45, clock=lambda: now) == 4  # no size beyond is tried


def test_a_burst_does_not_choose_the_part() -> None:
    """Size 8 is best, but what is timed first of it is slowed down; 4 comes next."""
    now, calls = 0.0, 0

    def run(size: int) -> None:
        nonlocal now, calls
        calls += size == 8
        burst = 1.15 if size == 8 and calls <= 3 else 1.0
        now += burst * (0.1 + size * (0.1 if size <= 8 else 0.4)) / 10

    assert fastest_part(run, 16, longest=60.0, clock=lambda: now) == 8


def test_what_may_be_fastest_is_timed_again_beside_the_others() -> None:
    now, ran = 0.0, list[str]()

    def call(name: str, seconds: list[float]) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            ran.append(name)
            now += seconds[min(ran.count(name), len(seconds)) - 1]

        return run

    # Two calls warm up; in the rounds after them a burst slows down what is faster.
    calls = {
        "burst": call("burst", [0.012] * 4 + [0.005]),
        "steady": call("steady", [0.010]),
        "slow": call("slow", [0.030]),
        "dense": call("dense", [0.020]),
    }
    found = compared(calls, "dense", rounds=2, least_seconds=0.0, clock=lambda: now)
    assert min(found, key=found.__getitem__) == "burst"
    assert found["burst"] == pytest.approx(0.25)
    assert ran.count("slow") == 4 < ran.count("burst")


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


@torch.no_grad()
def test_images_of_any_type_may_follow_one_another() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed, images_BCHW = deploy(network), images(network, 4)
    expected_BK = network.backbone(images_BCHW)
    for dtype in (torch.float64, torch.float32, torch.float64):
        close(deployed.dense(images_BCHW.to(dtype)), expected_BK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["digits-cnn", "resnet20-cifar"])
@torch.no_grad()
def test_a_whole_network_is_one_compiled_call(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library.functions(dtype) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    monkeypatch.setattr(
        selection, "IN_BUFFER", 1.0
    )  # seconds: whatever oneDNN takes, ours is taken
    network = traced(name, SHAPES[name])
    deployed = deploy(network, dtype=dtype)
    for batch in (1, 3):
        images_BCHW = images(network, batch)
        for plan in ([4] * len(network.sites), [2] * len(network.sites)):
            for _ in range(2):
                found = deployed.static(plan)(images_BCHW)
            expected = network.run(images_BCHW, torch.tensor([plan] * batch)).logits_BK
            close(found, expected, 1e-4 if dtype == torch.float32 else 0.1)
            chain = deployed.engine.programs(batch).chain(tuple(plan))
            assert chain is not None
            assert list(map(type, chain.steps)) == [CommandBuffer, FreeSlots]
            assert (
                sum(instruction.kind == Opcode.LINEAR for instruction in chain.steps[0].steps) == 1
            )


@pytest.mark.parametrize("name", ["mcifarnet", "resnet20-cifar", "mobilenet_v2"])
@torch.no_grad()
def test_the_layers_of_unlike_plans_are_one_compiled_call(name: str) -> None:
    """Residual adds with and without a ReLU after them are done by their convolutions."""
    network = traced(name, SHAPES[name])
    deployed = deploy(network)
    if "ragged" not in deployed.modes:
        pytest.skip("needs a compiler and an x86 CPU")
    deployed.run(images(network, 3), plans(network, 3, seed=3), mode="ragged")
    assert deployed.engine.ragged is not None
    assert sum(isinstance(step, partial) for step in deployed.engine.ragged._all) == 1


KEEPING = """
import resource, torch
from runtime_pruning.executor.native import memory
memory.keep_memory()
torch.set_num_threads(1)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


least = 10**6
for turn in range(10):
    before = faults()
    held = [torch.zeros(512, 1024) for _ in range(16)]  # 2 MiB each
    del held
    least = min(least, faults() - before)
print(least)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    def faults(**settings: str) -> int:
        known = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
        ran = subprocess.run(
            [sys.executable, "-c", KEEPING],
            check=True,
            capture_output=True,
            text=True,
            env=known | settings,
        )
        return int(ran.stdout)

    assert faults() <= 2 < faults(MALLOC_MMAP_THRESHOLD_="131072")

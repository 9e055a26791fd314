"""A network that may look twice: what runs, what it costs, and that all executors agree."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pruning_envs import RuntimePruningVectorEnv
from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency_cost import LatencyStepCost
from runtime_pruning.cost.macs import MacStepCost, dense_macs, plan_macs
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.datasets import TrainingSplit, load
from runtime_pruning.errors import ConfigError
from runtime_pruning.executor import deploy
from runtime_pruning.executor.deployed import DeployedMode
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, SecondLookPolicy
from runtime_pruning.network.training import recalibrate_batch_norm
from runtime_pruning.testing.network import shake, spread

SHAPE, BATCH, GROUPS = (3, 16, 16), 12, 4
INFO = load("digits").info


def images(batch: int = BATCH) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=["mcifarnet", "resnet20-cifar"])
def plain(request: pytest.FixtureRequest) -> PrunableNetwork:
    backbone = backbones.create(request.param, num_classes=10, image_shape=SHAPE)
    network = trace(shake(backbone, images(), seed=1), SHAPE, groups=GROUPS).eval()
    return spread(network, seed=1)


@pytest.fixture(scope="module")
def network(plain: PrunableNetwork) -> PrunableNetwork:
    return plain.with_second_look()


def plans(network: PrunableNetwork, batch: int = BATCH) -> Tensor:
    """Return plans of which some look once, some twice, at each width."""
    size = (batch, len(network.sites))
    found = torch.randint(1, GROUPS + 1, size, generator=torch.Generator().manual_seed(3))
    found[:, -1] = torch.arange(batch) % GROUPS + 1
    return found


def looking(network: PrunableNetwork) -> DecisionPolicy:
    torch.manual_seed(5)
    widths = network.feature_widths
    decision = DecisionNetwork(DecisionConfig(feature_widths=widths, groups=GROUPS))
    for weight in decision.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return DecisionPolicy(decision, 0.3)


@torch.no_grad()
def test_the_answer_is_that_of_the_last_pass(
    plain: PrunableNetwork, network: PrunableNetwork
) -> None:
    plans_BL = plans(network)
    found = network.run(images(), plans_BL)
    first = plain.run(images(), plans_BL[:, :-1])
    for image, groups in enumerate(plans_BL[:, -1].tolist()):
        expected, macs = first.logits_BK[image], first.executed_macs_B[image]
        if groups > 1:
            wide = plain.execute(images()[image, None], FixedPolicy(plain.uniform(groups)))
            expected, macs = wide.logits_BK[0], macs + wide.executed_macs_B[0]
        torch.testing.assert_close(found.logits_BK[image], expected, rtol=1e-4, atol=1e-4)
        assert found.executed_macs_B[image] == macs


@torch.no_grad()
def test_executed_macs_equal_analytic_macs(network: PrunableNetwork) -> None:
    plans_BL = plans(network)
    executed_B = network.run(images(), plans_BL).executed_macs_B
    assert torch.equal(executed_B, plan_macs(network, network.channels(plans_BL)))
    steps = MacStepCost(network)
    spent_B = sum(steps(site, plans_BL[:, : site + 1]) for site in range(plans_BL.shape[1]))
    expected_B = executed_B.double() / dense_macs(network)
    torch.testing.assert_close(torch.as_tensor(spent_B) + steps.before, expected_B)


def test_dense_is_one_pass(plain: PrunableNetwork, network: PrunableNetwork) -> None:
    assert dense_macs(network) == dense_macs(plain) == deploy(network).dense_macs
    assert network.uniform(3) == (*plain.uniform(3), 1)


@torch.no_grad()
def test_masked_equals_sliced(network: PrunableNetwork) -> None:
    sliced = network.run(images(), plans(network))
    masked = network.run(images(), plans(network), mode="masked")
    torch.testing.assert_close(masked.logits_BK, sliced.logits_BK, rtol=1e-4, atol=1e-4)
    passes_B = 1 + (plans(network)[:, -1] > 1).long()
    assert torch.equal(masked.executed_macs_B, passes_B * dense_macs(network))


@pytest.mark.parametrize("mode", ["auto", "image", "prefix", "ragged"])
def test_a_deployed_network_looks_twice_in_each_mode(
    network: PrunableNetwork, mode: DeployedMode
) -> None:
    deployed = deploy(network, part=5)  # the last part is a shorter one
    if mode != "auto" and mode not in deployed.modes:
        pytest.skip(f"{mode} does not run here")
    plans_BL = plans(network)
    with torch.no_grad():
        expected = network.run(images(), plans_BL)
    found = deployed.run(images(), plans_BL, mode=mode)
    torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.executed_macs_B, expected.executed_macs_B)
    assert torch.equal(found.groups_BL, plans_BL)
    assert torch.equal(found.channels_BL, expected.channels_BL)


@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_deployed_network_decides_on_what_it_sees(network: PrunableNetwork, batch: int) -> None:
    policy = looking(network)
    with torch.no_grad():
        expected = network.execute(images(batch), policy)
    found = deploy(network).execute(images(batch), policy)
    assert torch.equal(found.groups_BL, expected.groups_BL)
    assert torch.equal(found.executed_macs_B, expected.executed_macs_B)
    torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-3, atol=1e-3)
    if batch > 1:
        assert len(found.groups_BL[:, -1].unique()) > 1, "all images look alike: no test"


@pytest.mark.parametrize("batch", [1, BATCH])
def test_a_first_pass_that_nobody_decides_is_run_as_one(
    network: PrunableNetwork, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = len(network.plain.sites)
    with torch.no_grad():
        once = network.execute(images(), FixedPolicy(network.uniform(1)))
    shown_B = once.logits_BK.softmax(1).amax(1).sort().values
    threshold = float(shown_B[BATCH // 2 - 1 : BATCH // 2 + 1].mean())  # between two images
    torch.manual_seed(6)
    widths = network.feature_widths
    config = DecisionConfig(feature_widths=widths, groups=GROUPS, decides_from=passed)
    for policy in (
        SecondLookPolicy(3, passed, threshold),
        DecisionPolicy(DecisionNetwork(config), 1),
    ):
        with torch.no_grad():
            expected = network.execute(images(batch), policy)
        deployed = deploy(network)
        monkeypatch.setattr(deployed.engine, "ragged", None)
        monkeypatch.setattr("runtime_pruning.executor.engine.run_alone", None)
        monkeypatch.setattr("runtime_pruning.executor.engine.run_prefix", None)
        found = deployed.execute(images(batch), policy)
        assert torch.equal(found.groups_BL, expected.groups_BL)
        assert torch.equal(found.executed_macs_B, expected.executed_macs_B)
        torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-3, atol=1e-3)


def test_a_static_network_of_two_looks_runs_both(network: PrunableNetwork) -> None:
    plan = (*network.uniform(1)[:-1], 3)
    deployed = deploy(network)
    expected = deployed.run(images(), torch.tensor([plan] * BATCH)).logits_BK
    torch.testing.assert_close(deployed.static(plan)(images()), expected)


@torch.no_grad()
def test_the_features_are_class_probabilities_greatest_first(network: PrunableNetwork) -> None:
    run = network.start(images())
    for site in range(len(network.sites) - 1):
        run.advance(plans(network)[:, site])
    assert not run.finished
    features_BK = run.features_BF
    assert features_BK.shape == (BATCH, network.feature_widths[-1])
    torch.testing.assert_close(features_BK.sum(1), torch.ones(BATCH))
    assert (features_BK.diff(dim=1) <= 0).all()
    with pytest.raises(ConfigError, match="no logits before"):
        run.logits_BK  # noqa: B018


def test_copies_share_and_part_as_one(network: PrunableNetwork) -> None:
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert other.plain.backbone is other.backbone
        assert other.backbone is not network.backbone
        assert list(other.state_dict()) == list(network.plain.state_dict())
    assert network.regroup(2).uniform(2) == network.uniform(2)
    assert network.regroup(2).second_look


def test_statistics_are_taken_over_both_passes(network: PrunableNetwork) -> None:
    own = copy.deepcopy(network)
    info = replace(INFO, image_shape=SHAPE)
    pixels = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    split = TrainingSplit.from_arrays(info, pixels, np.zeros(64, dtype=np.int64))
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    narrow = (*own.uniform(1)[:-1], GROUPS)
    recalibrate_batch_norm(own, split, FixedPolicy(narrow), batches=1)
    after = own.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.endswith("narrow_means") for name in changed), "the first pass was not seen"
    conditioned = {name.removesuffix("narrow_means") for name in before if "narrow_means" in name}
    wide = {f"{name}running_mean" for name in conditioned}
    assert wide <= changed, "the second pass was not seen"


def test_an_episode_has_one_decision_more(network: PrunableNetwork) -> None:
    env = RuntimePruningVectorEnv(
        network=network,
        images=torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8).numpy(),
        labels=torch.zeros(BATCH, dtype=torch.int64).numpy(),
        penalty=1.0,
        num_envs=4,
        step_cost=MacStepCost(network),
        seed=0,
    )
    observation: Any = env.reset()[0]
    over = False
    steps = 0
    while not over:
        assert observation["site"][0] == steps
        observation, _, terminated_B, _, info = env.step(torch.tensor([0, 1, 2, 3]).numpy())
        over, steps = bool(terminated_B[0]), steps + 1
    assert steps == len(network.sites)
    assert info["cost"][0] == 0, "who keeps the answer pays nothing"
    assert (torch.tensor(info["cost"]).diff() > 0).all()


def test_a_second_look_costs_the_time_of_a_pass(network: PrunableNetwork) -> None:
    table = calibrate(
        TimedDeployedNetwork(deploy(network.plain)),
        backbone="test",
        passes=1,
        rounds=1,
        batches=(1,),
    )
    cost = LatencyStepCost(table, network)
    groups_BL = torch.tensor([[*network.uniform(1)[:-1], g] for g in range(1, GROUPS + 1)])
    last_B = cost(len(network.sites) - 1, groups_BL)
    assert last_B[0] == 0
    assert last_B[-1] == pytest.approx(1.0)
    assert (last_B[1:] > 0).all()

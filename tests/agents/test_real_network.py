"""The environment on a traced backbone: both executions, real costs, pushed weights."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from pruning_envs import RuntimePruningVectorEnv
from runtime_pruning import backbones, datasets
from runtime_pruning.cost.macs import MacStepCost, dense_macs, plan_macs
from runtime_pruning.network import PrunableNetwork, trace


@pytest.fixture(scope="module")
def network() -> PrunableNetwork:
    torch.manual_seed(0)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    return trace(backbone, (1, 8, 8), groups=3).eval()


@pytest.fixture(scope="module")
def settings(network: PrunableNetwork) -> dict[str, Any]:
    policy = datasets.load("digits").policy
    return {
        "network": network,
        "images": policy.images_NCHW,
        "labels": policy.labels_N,
        "penalty": 0.2,
        "num_envs": 16,
    }


def episode(env: RuntimePruningVectorEnv, seed: int) -> dict[str, np.ndarray]:
    """Features, rewards, groups and facts of one batch under random plans."""
    rng = np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    features, rewards, groups = [], [], []
    for _ in range(env.sites):
        features.append(observation["features"])
        action_B = rng.integers(0, env.groups, env.num_envs)
        observation, reward_B, _, _, facts = env.step(action_B)
        rewards.append(reward_B)
        groups.append(action_B + 1)
    return facts | {
        "features": np.stack(features, 1),
        "rewards": np.stack(rewards, 1),
        "groups": np.stack(groups, 1),
        "image": info["image"],
    }


def test_sliced_and_masked_tell_the_same(settings: dict[str, Any]) -> None:
    masked, sliced = (
        episode(RuntimePruningVectorEnv(**settings, mode=mode), seed=1)
        for mode in ("masked", "sliced")
    )
    for name in ("features", "rewards", "loss"):
        np.testing.assert_allclose(masked[name], sliced[name], atol=1e-4)
    assert masked["executed_macs"].min() > sliced["executed_macs"].max()


def test_the_last_reward_is_that_of_the_network_run_on_the_same_plan(
    settings: dict[str, Any], network: PrunableNetwork
) -> None:
    told = episode(RuntimePruningVectorEnv(**settings, alpha=0.5), seed=2)
    images_BCHW = datasets.to_float(settings["images"][told["image"]])
    with torch.inference_mode():
        result = network.run(images_BCHW, torch.from_numpy(told["groups"]))
    label_B = torch.from_numpy(settings["labels"][told["image"]])
    loss_B = torch.nn.functional.cross_entropy(result.logits_BK, label_B, reduction="none")
    expected_B = -0.2 * (told["groups"][:, -1] - 1) - 0.5 * loss_B.numpy()
    np.testing.assert_allclose(told["rewards"][:, -1], expected_B, atol=1e-4)


def test_costs_in_macs_add_up_to_the_plans_macs(
    settings: dict[str, Any], network: PrunableNetwork
) -> None:
    cost = MacStepCost(network)
    env = RuntimePruningVectorEnv(**settings | {"penalty": 1.0}, alpha=0.0, step_cost=cost)
    told = episode(env, seed=3)
    macs_B = plan_macs(network, network.channels(torch.from_numpy(told["groups"])))
    spent_B = cost.before - told["rewards"].sum(1)
    np.testing.assert_allclose(spent_B, macs_B.numpy() / dense_macs(network), rtol=1e-5)


@pytest.mark.parametrize("mode", ["masked", "sliced"])
def test_pushed_weights_are_those_that_run(
    settings: dict[str, Any], network: PrunableNetwork, mode: str
) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    env = RuntimePruningVectorEnv(**settings, mode=mode)
    before = episode(env, seed=4)
    env.set_backbone(other.state_dict(), version=1)
    pushed = episode(env, seed=4)
    anew = episode(RuntimePruningVectorEnv(**settings | {"network": other}, mode=mode), seed=4)
    assert pushed["loss"].tolist() == anew["loss"].tolist()
    assert not np.allclose(pushed["loss"], before["loss"])

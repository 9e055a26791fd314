"""Constrained RL: what is chosen of an agent's networks, and what is said where none fits."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from runtime_pruning import backbones
from runtime_pruning.agents.base import Rollouts
from runtime_pruning.cost.whole import network_cost
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import ConstrainedRL, ConstrainedRLConfig, Effort, Task
from runtime_pruning.methods.constrained_rl import choose
from runtime_pruning.methods.layerwise import ChannelLayers, RewardConfig
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.surgery import kept_channels
from runtime_pruning.resources import AgentResources, EnvRunnerRequest

DATA = load("digits")
SHAPE = (1, 8, 8)
QUICK: dict[str, Any] = {
    "episodes": 16,
    "finetune_steps": (0, 1),
    "rollouts": 32,
    "reward": {"images": 32, "calibration_images": 32, "finetune_batch": 8},
    "finetune": {"epochs": 1, "batch_size": 64},
    "agent": {"batch_episodes": 16, "epochs": 1},
}
RLLIB_WARNS = pytest.mark.filterwarnings("ignore:.*rllib-single-agent-env-v0 already in registry")


class Reported:
    """Keeps what a method reports."""

    def __init__(self) -> None:
        self.points: list[tuple[Any, Effort]] = []
        self.reasons: list[str] = []

    def __call__(self, policy: Any, network: Any, effort: Effort, **_: Any) -> None:
        self.points.append((network, effort))

    def infeasible(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture(scope="module")
def dense() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
    return trace(backbone, SHAPE, groups=2)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


def fit(dense: PrunableNetwork, settings: dict[str, Any], **changes: Any) -> Reported:
    data_ref = ray.put(DATA) if ray.is_initialized() else None
    task = Task(
        network=copy.deepcopy(dense), dense=dense, data=DATA, data_ref=data_ref, seed=0, **changes
    )
    reported: Any = Reported()
    ConstrainedRL().fit(task, ConstrainedRLConfig(**(QUICK | settings)), reported)
    kept: Reported = reported
    return kept


def chosen(dense: PrunableNetwork, budgets: dict[str, float], rollouts: Rollouts) -> Any:
    backbone = dense.backbone
    layers = ChannelLayers(backbone, SHAPE, DATA, RewardConfig())
    costs = {name: network_cost(name, backbone, SHAPE) for name in budgets}
    return choose(rollouts, layers, costs, budgets, 0.9)


def rollouts_of(dense: PrunableNetwork, removed: list[float], accuracy: list[float]) -> Rollouts:
    """Return episodes that remove the same share of all layers."""
    layers = ChannelLayers(dense.backbone, SHAPE, DATA, RewardConfig())
    macs = network_cost("macs", dense.backbone, SHAPE)
    removed_ET = np.array([[share] * 4 for share in removed])
    costs = [macs(layers.prune(shares)) / macs(dense.backbone) for shares in removed_ET]
    return Rollouts(removed_ET, np.array(accuracy), np.array(costs)[:, None])


def test_the_most_accurate_network_that_uses_its_budget_is_chosen(dense: PrunableNetwork) -> None:
    rollouts = rollouts_of(dense, [0.0, 0.25, 0.27, 0.5, 0.75], [0.9, 0.7, 0.8, 0.85, 0.6])
    cost_E = rollouts.cost_EK[:, 0]
    # The third uses 90 % of it, the fourth, more accurate than the second, does not.
    budget = float(cost_E[1]) * 1.001
    assert cost_E[2] > 0.9 * budget > cost_E[3]
    choice = chosen(dense, {"macs": budget}, rollouts)
    assert choice.removed_T == [0.27] * 4
    assert choice.cost == {"macs": pytest.approx(cost_E[2])}


def test_where_none_fits_the_reason_is_told(dense: PrunableNetwork) -> None:
    rollouts = rollouts_of(dense, [0.0, 0.5], [0.9, 0.8])
    choice = chosen(dense, {"macs": 0.1}, rollouts)
    assert choice.removed_T is None
    assert "None of 2 networks" in choice.reason
    assert "macs 0.2" in choice.reason
    assert "to 1.000 where the budget is 0.100" in choice.reason


def test_a_measured_cost_that_was_luck_is_found_out(dense: PrunableNetwork) -> None:
    rollouts = rollouts_of(dense, [0.25, 0.5], [0.9, 0.8])
    cheap, dear = sorted(rollouts.cost_EK[:, 0].tolist())
    assert dear > 2 * cheap
    lucky = Rollouts(rollouts.removed_ET, rollouts.accuracy_E, np.full((2, 1), cheap))
    assert chosen(dense, {"macs": cheap * 1.01}, lucky).removed_T == [0.5] * 4


@pytest.mark.ray
@RLLIB_WARNS
@pytest.mark.usefixtures("ray_cluster")
def test_a_point_is_within_all_budgets_and_physically_small(
    dense: PrunableNetwork, tmp_path: Path
) -> None:
    """Two budgets at once; an env runner in a process of its own; what is interrupted goes on."""
    settings = {"cost": "macs", "budget": 0.5, "further_budgets": {"parameters": 0.6}}
    settings |= {"aim": 0.9, "rollouts": 64}
    runners = AgentResources(env_runner=EnvRunnerRequest(workers=1, cpus=0.5))
    reported = fit(dense, settings, resources=runners, work=tmp_path)
    assert reported.reasons == []
    ((network, effort),) = reported.points
    used = {}
    for name, budget in {"macs": 0.5, "parameters": 0.6}.items():
        cost = network_cost(name, dense.backbone, SHAPE)
        used[name] = cost(network.backbone) / cost(dense.backbone) / budget
    assert max(used.values()) <= 1
    assert max(used.values()) >= 0.9
    assert kept_channels(network.backbone)
    assert effort.env_steps == 2 * 16 * 4
    # One step of 8 images in each of the second part's 16 episodes, then one epoch.
    assert effort.epochs == pytest.approx(1 + 16 * 8 / len(DATA.training))
    kept = json.loads((tmp_path / "choice.json").read_text())
    # Interrupted after the choice, it goes on from there; after the agent's last part, too.
    again = fit(dense, settings, work=tmp_path)
    assert again.points[0][1].env_steps == effort.env_steps
    for begun in ("choice.json", "training-0.pt"):
        (tmp_path / begun).unlink()
    fit(dense, settings | {"rollouts": 1}, work=tmp_path)
    resumed = json.loads((tmp_path / "choice.json").read_text())
    assert resumed["spent"] == kept["spent"]


@pytest.mark.ray
@RLLIB_WARNS
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("prune", ["channels", "weights"])
def test_what_cannot_be_reached_is_said_and_nothing_is_reported(
    dense: PrunableNetwork, prune: str
) -> None:
    settings = {"cost": "parameters", "budget": 0.05, "prune": prune}
    settings["agent"] = QUICK["agent"] | {"most_removed": 0.2}
    reported = fit(dense, settings | {"finetune_steps": (0,), "rollouts": 16})
    assert reported.points == []
    assert "where the budget is 0.050" in reported.reasons[0]


def test_a_trial_that_has_reported_is_done(dense: PrunableNetwork) -> None:
    assert fit(dense, {}, points_done=1).points == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"cost": "mac"}, ConfigError, "Did you mean 'macs'"),
        ({"cost": "nowhere:cost"}, ConfigError, "must be importable"),
        ({"further_budgets": {"macs": 0.3}}, ConfigError, "must be of other costs"),
        ({"budget": 0}, ConfigError, "budget"),
        ({"finetune_steps": ()}, ConfigError, "finetune_steps"),
        ({"prune": "weights", "cost": "milliseconds"}, ConfigError, "must be 'channels'"),
        ({"agent": "dqn"}, ConfigError, "must be one of"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ConstrainedRLConfig(**settings)

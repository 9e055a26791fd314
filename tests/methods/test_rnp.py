"""RNP with a conditioned agent: its points, and how an interrupted round goes on."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from pruning_envs import PenaltyRange
from runtime_pruning import backbones
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import AgentSettings, Algorithm, PruningProblem
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.config import build_config
from runtime_pruning.datasets import load
from runtime_pruning.methods import Effort, RNPConfig, Task
from runtime_pruning.methods.rnp import RNP
from runtime_pruning.network import trace

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    import ray

    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


CONFIG = RNPConfig(
    penalty=PenaltyRange(0.1, 10.0),
    dials=3,
    rounds=2,
    episodes_per_round=128,
    finetune_images=128,
    finetune_batch=64,
    finetune_distillation=1.0,
    calibration_batches=1,
    agent=DQNSettings(encoder=4, hidden=4, images_per_runner=64, warmup_episodes=64),
)


def task(**changes: Any) -> Task:
    import ray

    data = load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=data.info.image_shape)
    network = trace(backbone, data.info.image_shape, groups=4, align=4)
    own = {"network": network, "dense": copy.deepcopy(network), "seed": 0}
    return Task(**{"data": data, "data_ref": ray.put(data), **own, **changes})


class Points:
    """Keeps what is reported; stops the method after some points, as an interruption would."""

    def __init__(self, folder: Path, stop_after: int = 99) -> None:
        self.folder, self.stop_after = folder, stop_after
        self.penalties: list[float] = []
        self.steps: list[int] = []
        self.epochs: list[float] = []
        self.weights: list[torch.Tensor] = []

    def __call__(self, policy: Any, network: Any, effort: Any, *, save_state: Any) -> None:
        self.penalties.append(policy.penalty)
        self.steps.append(effort.env_steps)
        self.epochs.append(effort.epochs)
        self.weights.append(network.backbone.conv3.weight.detach().clone())
        save_state(self.folder)
        if len(self.penalties) == self.stop_after:
            raise KeyboardInterrupt


def test_a_round_is_measured_at_each_dial_and_goes_on_where_it_was_interrupted(
    tmp_path: Path,
) -> None:
    whole = Points(tmp_path / "whole")
    given = task(network_effort=Effort(epochs=2.0))
    RNP().fit(given, CONFIG, whole)
    assert whole.penalties == pytest.approx([10.0, 1.0, 0.1] * 2)
    assert whole.steps == [384] * 3 + [768] * 3
    # 128 images a turn, behind the two epochs of the preparation.
    turn = 128 / len(given.data.training)
    assert whole.epochs == pytest.approx([2 + turn] * 3 + [2 + 2 * turn] * 3)
    assert torch.equal(whole.weights[0], whole.weights[2])  # one backbone serves all dials
    assert not torch.equal(whole.weights[2], whole.weights[3])

    cut = Points(tmp_path / "cut", stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        RNP().fit(task(), CONFIG, cut)
    rest = Points(tmp_path / "cut")
    RNP().fit(task(points_done=2, resume=tmp_path / "cut"), CONFIG, rest)
    assert rest.penalties == pytest.approx([0.1, 10.0, 1.0, 0.1])
    assert torch.equal(rest.weights[0], cut.weights[-1])  # measured on, not trained again
    assert rest.steps == [384, 768, 768, 768]


def test_one_penalty_is_one_point_a_round() -> None:
    assert RNPConfig(penalty=0.5).measured_penalties == (0.5,)
    assert RNPConfig(penalty=PenaltyRange(0.5, 2.0), dials=2).measured_penalties == (2.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class AlwaysSettings(AgentSettings):
    """Settings of an algorithm that is no part of the package."""

    algorithm: ClassVar[str] = "always-for-tests"
    groups: int = 1


class AlwaysAgent:
    """Decides for so many groups, whatever it sees; keeps count of what it was asked."""

    def __init__(self, problem: PruningProblem, groups: int) -> None:
        network = problem.network
        config = DecisionConfig(feature_widths=network.feature_widths, groups=network.groups)
        self._network = DecisionNetwork(config)
        for weight in self._network.parameters():
            torch.nn.init.zeros_(weight)
        with torch.no_grad():
            self._network.decode_bias_LG[:, groups - 1] = 1.0
        self.env_steps, self.versions, self.stopped = 0, [], False

    def learn(self, episodes: int, on_iteration: Any = None) -> None:
        self.env_steps += episodes

    def decision_network(self) -> DecisionNetwork:
        return self._network

    def push_backbone(self, state_dict: Any, version: int) -> None:
        self.versions.append(version)

    def save_to_path(self, path: str) -> None:
        Path(path).mkdir()

    def restore_from_path(self, path: str) -> None:
        assert Path(path).is_dir()

    def stop(self) -> None:
        self.stopped = True


AGENTS: list[AlwaysAgent] = []


@algorithms.register(AlwaysSettings.algorithm)
class Always(Algorithm[AlwaysSettings]):
    settings_type = AlwaysSettings

    def build(self, problem: PruningProblem, settings: AlwaysSettings) -> AlwaysAgent:
        AGENTS.append(AlwaysAgent(problem, settings.groups))
        return AGENTS[-1]


def test_a_third_partys_algorithm_trains_the_agent(tmp_path: Path) -> None:
    settings = {"penalty": 0.5, "rounds": 2, "episodes_per_round": 100, "finetune_images": 0}
    agent = {"algorithm": "always-for-tests", "groups": 3}
    config = build_config(RNPConfig, {**settings, "agent": agent}, where="rnp")
    plans, steps = [], []

    def report(policy: Any, network: Any, effort: Any, *, save_state: Any) -> None:
        plans.append(network.execute(torch.rand(4, 1, 8, 8), policy).groups_BL)
        steps.append(effort.env_steps)
        save_state(tmp_path / str(len(steps)))

    RNP().fit(task(), config, report)
    assert [plan_BL.unique().tolist() for plan_BL in plans] == [[3], [3]]
    assert steps == [100, 200]
    assert AGENTS[-1].versions == [1, 2]
    assert AGENTS[-1].stopped

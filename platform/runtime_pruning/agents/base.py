"""What an algorithm is given, and what it gives back: an agent that can be trained.

An algorithm is named in a method's settings, ``agent: {algorithm: dqn, ...}``; the other settings
there are its own. It is filed by `runtime_pruning.agents.algorithms.register`.

Dimensions: E episodes, T layers, K costs.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime_pruning.agents.decision_network import DecisionNetwork
from runtime_pruning.resources import AgentResources

if TYPE_CHECKING:
    from pruning_envs import (
        AnswerLoss,
        ExecutionMode,
        LayerwiseNetwork,
        NetworkCost,
        PenaltyRange,
        StepCost,
    )


# Told decisions made so far, and readings by names of the glossary.
OnIteration: TypeAlias = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class PruningProblem:
    """What an agent is to decide, on which images, at which price.

    Attributes:
        network: a `StagedNetwork`, or a reference to one in Ray's object store.
        data: images that rewards come from: whatever has ``images_NCHW``, uint8, and ``labels_N``,
            as a dataset's split does; or a reference to it.
        penalty: reward lost per unit of cost; a pair is drawn from log-uniformly per episode.
        alpha: weight of the answer's loss in the reward.
        loss: of the answer.
        split: take this attribute of ``data``: a reference to a whole dataset can be given.
        step_cost: what decisions cost; None is the paper's count of groups. Must pickle.
        mode: how the environment executes the network.
        decides_from: the first site that the agent decides; those before it run one group.
        episodes: that the agent will be trained for in all, where its schedules are shares of that.
        seed: of everything random.
        resources: of the processes that sample and learn.
        device: where this process runs networks: env runners of their own follow ``resources``.
    """

    network: Any
    data: Any
    penalty: "float | tuple[float, float] | PenaltyRange"
    alpha: float = 1.0
    loss: "AnswerLoss" = "cross-entropy"
    split: str | None = None
    step_cost: "StepCost | None" = None
    mode: "ExecutionMode" = "masked"
    decides_from: int = 0
    episodes: int | None = None
    seed: int = 0
    resources: AgentResources = field(default_factory=AgentResources)
    device: str = "cpu"

    @property
    def env_device(self) -> str:
        """Where environments run the network."""
        runner = self.resources.env_runner
        return runner.device if runner.workers else self.device


@dataclass(frozen=True, kw_only=True)
class ConstrainedProblem:
    """Which network an agent is to prune as a whole, and what may be left of it.

    Attributes:
        network: what is pruned layer by layer. Must pickle, as the costs must.
        costs: functions of the pruned network, by name.
        budgets: greatest fraction of the whole network's cost that may be left, by the same names.
        seed: of everything random.
        resources: of the processes that sample and learn.
    """

    network: "LayerwiseNetwork"
    costs: "Mapping[str, NetworkCost]"
    budgets: Mapping[str, float]
    seed: int = 0
    resources: AgentResources = field(default_factory=AgentResources)

    def __post_init__(self) -> None:
        if not self.budgets or set(self.budgets) != set(self.costs):
            raise ValueError(
                "`budgets` must name the costs, one at least, but got "
                f"{sorted(self.budgets)} and {sorted(self.costs)}."
            )
        for name, budget in self.budgets.items():
            if not 0 < budget <= 1:
                raise ValueError(f"`0 < budgets.{name} <= 1` must hold, but got {budget}.")


@dataclass(frozen=True)
class Rollouts:
    """Episodes of a trained agent.

    Attributes:
        removed_ET: share that was removed of each layer, float64.
        accuracy_E: of what was left, in [0, 1].
        cost_EK: what that cost, as fractions of the whole network's.
    """

    removed_ET: NDArray[np.float64]
    accuracy_E: NDArray[np.float64]
    cost_EK: NDArray[np.float64]


class ConstrainedAgent(Protocol):
    """An agent in training that prunes a network within budgets.

    Attributes:
        finetune_steps: that a pruned network learns for before it is judged; may be set.
    """

    finetune_steps: int

    @property
    def env_steps(self) -> int:
        """Layers decided so far, over all environments."""

    @property
    def num_layers(self) -> int:
        """Decisions that prune a network."""

    def learn(self, episodes: int) -> None:
        """Train on at least so many more episodes."""

    def roll_out(self, episodes: int) -> Rollouts:
        """Return at least so many episodes of the agent as it is."""

    def save_to_path(self, path: str, /) -> Any:
        """Write a checkpoint into a folder; the network is not in it."""

    def restore_from_path(self, path: str, /) -> Any:
        """Bring an agent that was built alike to the state of a checkpoint."""

    def stop(self) -> None:
        """End its processes."""


class Agent(Protocol):
    """An agent in training that decides image by image."""

    @property
    def env_steps(self) -> int:
        """Decisions made so far, over all environments."""

    def learn(self, episodes: int, on_iteration: OnIteration | None = None) -> None:
        """Train on at least so many more episodes.

        Args:
            episodes: of all environments.
            on_iteration: told decisions made so far, and readings by names of the glossary.
        """

    def decision_network(self) -> DecisionNetwork:
        """Return a copy of what decides, in plain torch, on the CPU."""

    def push_backbone(self, state_dict: Mapping[str, Any], version: int) -> None:
        """Sample on other backbone weights from here on.

        Args:
            state_dict: of the network that the environment runs.
            version: greater than all before.
        """

    def save_to_path(self, path: str, /) -> Any:
        """Write a checkpoint into a folder; network structure and data are not in it."""

    def restore_from_path(self, path: str, /) -> Any:
        """Bring an agent that was built alike to the state of a checkpoint."""

    def stop(self) -> None:
        """End its processes."""


class AgentSettings:
    """Settings of one algorithm: a frozen dataclass that refuses bad values.

    Attributes:
        algorithm: the name that the algorithm is filed under.
    """

    algorithm: ClassVar[str]


SettingsT = TypeVar("SettingsT", bound=AgentSettings)


class Algorithm(abc.ABC, Generic[SettingsT]):
    """Builds agents that learn in one way.

    Attributes:
        settings_type: the class of its settings.
        problem_type: what it learns: `PruningProblem`, or `ConstrainedProblem`.
    """

    settings_type: ClassVar[type[AgentSettings]]
    problem_type: ClassVar[type[Any]] = PruningProblem

    @abc.abstractmethod
    def build(self, problem: Any, settings: SettingsT) -> Any:
        """Return an untrained agent, its processes started. Ray is running.

        Args:
            problem: a ``problem_type``.
            settings: a ``settings_type``.

        Returns:
            An `Agent`, or a `ConstrainedAgent` where that is the problem.
        """

"""Pruning by constrained reinforcement learning: an agent removes layer by layer, within budgets.

Source: Malik, Haider, Iqbal, Taj, "Neural Network Pruning Through Constrained Reinforcement
Learning", ICPR 2022. Its released code prunes single weights to a budget of them; here channels go
for good, and budgets are of anything that can be evaluated: see `runtime_pruning.cost.whole`.

The agent learns; then it is rolled out, and of what its episodes leave the most accurate network
within all budgets is fine-tuned. Where none of them is, there is no point, and the run says so.

Dimensions: E episodes, T layers, K costs.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, InstanceOf
from torch import nn

from pruning_envs import NetworkCost
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import (
    AgentSettings,
    ConstrainedAgent,
    ConstrainedProblem,
    Rollouts,
)
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.agents.settings import PPOLagrangianSettings
from runtime_pruning.config import Count, CountOrNone, Share, SomeShare, config_class
from runtime_pruning.cost import whole
from runtime_pruning.files import write_text
from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.methods.layerwise import (
    ChannelLayers,
    PrunedByLayer,
    RewardConfig,
    WeightLayers,
    zero_masks,
)
from runtime_pruning.methods.surgical import dense_backbone, finetune_and_report
from runtime_pruning.network.finetuning import FinetuneConfig

# What zeros among the weights do not change.
_OF_SHAPES = ("milliseconds", "peak-activations")


def _constrained(values: object) -> AgentSettings:
    return algorithms.settings_of(values, ConstrainedProblem)


ConstrainedAgency = Annotated[InstanceOf[AgentSettings], BeforeValidator(_constrained)]


@config_class
class ConstrainedRLConfig:
    """Settings of the method.

    Attributes:
        cost: what the budget is of: a name of `runtime_pruning.cost.whole`, or ``module:function``.
        budget: greatest fraction of the dense network's cost that may be left.
        further_budgets: of other costs, by their names; all hold at once.
        prune: channels, or single weights, which save parameters and no time here.
        least_use: of its budgets a network must use one by so much, or it has not found it.
        aim: share of each budget that the agent aims at: its episodes spread about that.
        episodes: networks that the agent prunes while it learns.
        finetune_steps: that a pruned network learns for before it is judged, in equal parts of the
            episodes.
        reward: how it is judged.
        rollouts: networks that the trained agent prunes, at least, to choose among.
        finetune: what the chosen one may cost, taught by the dense network.
        agent: how the agent learns: the name of an algorithm, and settings of that.
    """

    cost: str = "macs"
    budget: SomeShare = 0.5
    further_budgets: dict[str, SomeShare] = field(default_factory=dict)
    prune: Literal["channels", "weights"] = "channels"
    least_use: Share = 0.9
    aim: SomeShare = 0.95
    episodes: Count = 1600
    finetune_steps: Annotated[tuple[CountOrNone, ...], Field(min_length=1)] = (0, 32, 128)
    reward: RewardConfig = field(default_factory=RewardConfig)
    rollouts: Count = 64
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    agent: ConstrainedAgency = field(default_factory=PPOLagrangianSettings)

    def __post_init__(self) -> None:
        if self.cost in self.further_budgets:
            raise ValueError(f"`further_budgets` must be of other costs, but got {self.cost!r}.")
        for name in self.budgets:
            whole.check_name(name)
            if self.prune == "weights" and name in _OF_SHAPES:
                raise ValueError(
                    f"`prune` must be 'channels' for a budget of {name}, but got 'weights': "
                    "zeros are computed like other weights."
                )

    @property
    def budgets(self) -> dict[str, float]:
        """All budgets by the names of their costs."""
        return {self.cost: self.budget, **self.further_budgets}


@dataclass(frozen=True)
class Choice:
    """What was chosen of an agent's episodes, or why nothing was.

    Attributes:
        removed_T: share removed of each layer; None where no network fits.
        cost: fractions of the dense network's costs, by name, as measured again.
        reason: why no network fits.
    """

    removed_T: list[float] | None
    cost: dict[str, float]
    reason: str = ""


@register("constrained-rl")
class ConstrainedRL(Method[ConstrainedRLConfig]):
    """One operating point within the budgets, or the word that there is none."""

    config_type = ConstrainedRLConfig
    trains_agent = True
    plans_groups = False

    def budgets(self, config: ConstrainedRLConfig) -> Mapping[str, float]:
        """Return the budgets."""
        return config.budgets

    def fit(self, task: Task, config: ConstrainedRLConfig, report: Report) -> None:
        """Train the agent, choose among its networks, and fine-tune the best within budget."""
        if task.points_done:
            return
        dense = dense_backbone(task)
        made = ChannelLayers if config.prune == "channels" else WeightLayers
        layers = made(
            dense,
            task.dense.image_shape,
            ObjectStoreValue(task.data_ref),
            config.reward,
            device=_device(task),
        )
        costs = {
            name: whole.network_cost(name, dense, task.dense.image_shape) for name in config.budgets
        }
        choice, spent = _found(task, config, layers, costs)
        if choice.removed_T is None:
            report.infeasible(choice.reason)
            return
        backbone = layers.prune(np.array(choice.removed_T)).cpu()
        masks = zero_masks(backbone) if config.prune == "weights" else None
        finetune_and_report(
            task, backbone, config.finetune, report, task.dense_effort + spent, index=0, masks=masks
        )


def _device(task: Task) -> str:
    """Return where pruned networks are judged."""
    runner = task.resources.env_runner
    return runner.device if runner.workers else str(next(task.dense.parameters()).device)


def _found(
    task: Task, config: ConstrainedRLConfig, layers: PrunedByLayer, costs: Mapping[str, NetworkCost]
) -> tuple[Choice, Effort]:
    """Return what the agent found and what it has cost, as an interrupted run may have kept it."""
    kept = None if task.work is None else task.work / "choice.json"
    if kept is not None and kept.exists():
        facts = json.loads(kept.read_text())
        return Choice(**facts["choice"]), Effort(**facts["spent"])
    problem = ConstrainedProblem(
        network=layers,
        costs=costs,
        budgets={name: config.aim * budget for name, budget in config.budgets.items()},
        seed=task.seed,
        resources=task.resources,
    )
    agent = algorithms.build_constrained(problem, config.agent)
    try:
        spent = _learn(agent, task, config)
        rollouts = agent.roll_out(config.rollouts)
    finally:
        agent.stop()
    choice = choose(rollouts, layers, costs, config.budgets, config.least_use)
    if kept is not None:
        write_text(kept, json.dumps({"choice": asdict(choice), "spent": asdict(spent)}))
    return choice, spent


def _learn(agent: ConstrainedAgent, task: Task, config: ConstrainedRLConfig) -> Effort:
    """Train the agent part by part, from the last part that was kept; return what it has cost."""
    parts = config.finetune_steps
    spent, first = _resumed(agent, task.work, len(parts))
    for part in range(first, len(parts)):
        started, before = time.monotonic(), agent.env_steps
        agent.finetune_steps = parts[part]
        agent.learn(-(-config.episodes // len(parts)))
        decided = agent.env_steps - before
        images = decided / agent.num_layers * parts[part] * config.reward.finetune_batch
        spent += Effort(
            env_steps=decided,
            epochs=images / len(task.data.training),
            train_seconds=time.monotonic() - started,
        )
        if task.work is not None:
            folder = task.work / f"agent-{part}"
            agent.save_to_path(str(folder.absolute()))
            write_text(folder.with_suffix(".json"), json.dumps(asdict(spent)))
    agent.finetune_steps = parts[-1]
    return spent


def _resumed(agent: ConstrainedAgent, work: Path | None, parts: int) -> tuple[Effort, int]:
    """Bring the agent to the last part that an interrupted run kept; return what comes next."""
    for part in reversed(range(parts if work is not None else 0)):
        assert work is not None
        effort = work / f"agent-{part}.json"
        if effort.exists():
            agent.restore_from_path(str(effort.with_suffix("").absolute()))
            return Effort(**json.loads(effort.read_text())), part + 1
    return Effort(), 0


def choose(
    rollouts: Rollouts,
    layers: PrunedByLayer,
    costs: Mapping[str, NetworkCost],
    budgets: Mapping[str, float],
    least_use: float,
) -> Choice:
    """Return the most accurate network within all budgets that uses one of them well.

    What is chosen is made and its costs are taken anew, since a measured one may have had luck.

    Args:
        rollouts: episodes of the trained agent.
        layers: what it pruned.
        costs: by name, in the rollouts' order.
        budgets: fractions of the dense network's costs, by name.
        least_use: share of one budget that must be used.
    """
    budget_K = np.array([budgets[name] for name in costs])
    fits_E = _fits(rollouts.cost_EK, budget_K, least_use)
    order_E = np.argsort(-rollouts.accuracy_E, kind="stable")
    whole_K = _spent(costs, layers.dense)
    for episode in order_E[fits_E[order_E]]:
        removed_T = rollouts.removed_ET[episode]
        cost_K = _spent(costs, layers.prune(removed_T)) / whole_K
        if _fits(cost_K[None], budget_K, least_use)[0]:
            named = dict(zip(costs, cost_K.tolist(), strict=True))
            return Choice(removed_T.tolist(), named)
    return Choice(None, {}, _why_none(rollouts, costs, budget_K, least_use))


def _fits(
    cost_EK: NDArray[np.float64], budget_K: NDArray[np.float64], least_use: float
) -> NDArray[np.bool_]:
    """Return ``fits_E``: within all budgets, and one of them used."""
    use_EK = cost_EK / budget_K
    fits_E: NDArray[np.bool_] = (use_EK <= 1).all(axis=1) & (use_EK.max(axis=1) >= least_use)
    return fits_E


def _spent(costs: Mapping[str, NetworkCost], network: nn.Module) -> NDArray[np.float64]:
    """Return ``cost_K`` of a network, in the costs' own units."""
    return np.array([cost(network) for cost in costs.values()], np.float64)


def _why_none(
    rollouts: Rollouts,
    costs: Mapping[str, NetworkCost],
    budget_K: NDArray[np.float64],
    least_use: float,
) -> str:
    """Return what the agent's networks cost in place of what they may."""
    ranges = [
        f"{name} {low:.3f} to {high:.3f} where the budget is {budget:.3f}"
        for name, low, high, budget in zip(
            costs, rollouts.cost_EK.min(0), rollouts.cost_EK.max(0), budget_K, strict=True
        )
    ]
    return (
        f"None of {len(rollouts.accuracy_E)} networks of the trained agent is within all budgets "
        f"and uses {least_use:.0%} of one: {'; '.join(ranges)}, as fractions of the dense network."
    )

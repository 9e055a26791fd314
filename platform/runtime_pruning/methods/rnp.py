"""Runtime Neural Pruning: a decision network chooses, image by image, the groups of each site.

Source: Lin, Rao, Lu, Zhou, "Runtime Neural Pruning", NeurIPS 2017: algorithm 1 (agent and backbone
trained in turns), section 3.2 (reward: minus alpha times the loss at the end, minus the penalty
times the cost of each decision; alpha such that alpha times the loss is 1 on average).

The paper trains an agent per penalty. Ours may be conditioned instead: it sees the penalty, which
is drawn per episode, and at inference the penalty is a dial that one agent and one backbone serve.

Dimensions: B images, L sites.
"""

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, InstanceOf
from safetensors.torch import load_file
from torch import Tensor

from pruning_envs import AnswerLoss, PenaltyRange, answer_loss
from runtime_pruning import cost
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import Agent, AgentSettings, PruningProblem
from runtime_pruning.agents.policy import DecisionPolicy, SpreadPolicy
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.config import Count, CountOrNone, Positive, Share, config_class
from runtime_pruning.datasets import PolicySplit
from runtime_pruning.files import save_tensors
from runtime_pruning.glossary import FINETUNE_ACCURACY, FINETUNE_LOSS
from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.methods.evaluation import batches
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import Policy, RandomPolicy
from runtime_pruning.network.trainer import EpochReport, TrainConfig
from runtime_pruning.network.training import finetune, recalibrate_batch_norm

EFFORT = "effort.json"
SCALE_BATCH = 64  # images run at once to find alpha: photographs fill a GPU's memory


Agency = Annotated[InstanceOf[AgentSettings], BeforeValidator(algorithms.settings_of)]


@config_class
class RNPConfig:
    """Settings of the method.

    Attributes:
        penalty: reward lost per unit of cost; a range, low to high, conditions the agent on it.
        dials: penalties at which a conditioned agent is measured in each round, log-spaced over
            the range, both ends included, dearest first; 8 where nothing is said.
        cost: registered name of what a decision costs: ``macs`` (fraction of the dense network's),
            or ``groups`` (the paper's).
        reward_loss: of the answer, in the reward: cross-entropy as in the paper, or the expected
            error, one minus the probability of the right class, which is nearer to accuracy.
        rounds: turns of training the agent, then the backbone; each ends in an operating point, or
            in one per dial.
        episodes_per_round: images that the agent decides on in a turn.
        finetune_images: images on which the backbone learns under the agent's plans in a turn;
            more than the training split holds are whole passes over it.
        finetune_batch, finetune_lr: of these passes.
        finetune_distillation: share of their loss that the dense network's soft targets give.
        finetune_batch_norm: learn under the statistics of each batch, or under those that are
            there, frozen: half the time, and they are taken anew afterwards.
        calibration_batches: batches of 256 training images over which batch-norm statistics are
            taken anew under the agent's plans, for each dial its own; 0 leaves them.
        agent: how the agent learns: the name of an algorithm, and settings of that.
    """

    __moved__: ClassVar[dict[str, str]] = {"exploration": "settings.agent.epsilon.share"}

    penalty: float | PenaltyRange
    dials: Count | None = None
    cost: str = "macs"
    reward_loss: AnswerLoss = "cross-entropy"
    rounds: Count = 2
    episodes_per_round: Count = 10_000
    finetune_images: CountOrNone = 6400
    finetune_batch: Count = 128
    finetune_lr: Positive = 0.01
    finetune_distillation: Share = 0.0
    finetune_batch_norm: Literal["batch", "frozen"] = "batch"
    calibration_batches: CountOrNone = 8
    agent: Agency = field(default_factory=DQNSettings)

    def __post_init__(self) -> None:
        penalties = PenaltyRange.of(self.penalty)
        if self.dials is not None and penalties.low == penalties.high:
            raise ValueError(
                "`penalty` must be a range, low to high, for `dials` to divide, but got "
                f"{self.penalty} and {self.dials}."
            )
        cost.get(self.cost)

    @property
    def measured_penalties(self) -> tuple[float, ...]:
        """The penalties that a round's agent is measured at, dearest first."""
        penalties = PenaltyRange.of(self.penalty)
        if penalties.low == penalties.high:
            return (penalties.low,)
        return tuple(np.geomspace(penalties.high, penalties.low, self.dials or 8).tolist())


@register("rnp")
class RNP(Method[RNPConfig]):
    """Operating points of each round, on a backbone that has learned under the agent's plans."""

    config_type = RNPConfig
    trains_agent = True

    def points_per_stage(self, config: RNPConfig) -> int:
        """Return how many penalties a round's agent is measured at."""
        return len(config.measured_penalties)

    def fit(self, task: Task, config: RNPConfig, report: Report) -> None:
        """Train agent and backbone in turns."""
        penalties = config.measured_penalties
        first, measured = divmod(task.points_done, len(penalties))
        agent = build_agent(task, config)
        try:
            spent = self._resume(task, agent)
            for turn in range(first, config.rounds):
                if turn > first or not measured:
                    spent += self._train(agent, task, config, turn)
                network = agent.decision_network()
                trained = copy.deepcopy(task.network.state_dict())
                for penalty in penalties[measured if turn == first else 0 :]:
                    policy = DecisionPolicy(network, penalty)
                    task.network.load_state_dict(trained)
                    self._recalibrate(task, config, policy)
                    report(
                        policy,
                        task.network,
                        task.network_effort + spent,
                        save_state=_saver(agent, trained, spent),
                    )
                task.network.load_state_dict(trained)
        finally:
            agent.stop()

    def _train(self, agent: Agent, task: Task, config: RNPConfig, turn: int) -> Effort:
        """Train the agent, then the backbone under the agent's plans; return what it has cost."""
        started, before = time.monotonic(), agent.env_steps
        agent.learn(config.episodes_per_round, task.curves.add)
        penalties, rng = PenaltyRange.of(config.penalty), np.random.default_rng(task.seed + turn)
        policy = SpreadPolicy(
            agent.decision_network(), lambda count: torch.from_numpy(penalties.draw(count, rng))
        )
        images = self._train_backbone(task, config, policy, turn)
        agent.push_backbone(task.network.state_dict(), version=turn + 1)
        return Effort(
            env_steps=agent.env_steps - before,
            epochs=images / len(task.data.training),
            train_seconds=time.monotonic() - started,
        )

    def _resume(self, task: Task, agent: Agent) -> Effort:
        """Return to an interrupted run's last point; return what it has cost."""
        if task.resume is None:
            return Effort()
        task.network.load_state_dict(load_file(task.resume / "network.safetensors"))
        agent.restore_from_path(str((task.resume / "algorithm").absolute()))
        return Effort(**json.loads((task.resume / EFFORT).read_text()))

    def _train_backbone(
        self, task: Task, config: RNPConfig, policy: SpreadPolicy, turn: int
    ) -> int:
        """Let the backbone learn under the agent's plans; return how many images it saw."""
        training, images = task.data.training, 0
        if config.finetune_images:
            seed = task.seed + turn
            count = min(config.finetune_images, len(training))
            rows = np.random.default_rng(seed).permutation(len(training))[:count]
            settings = TrainConfig(
                epochs=round(config.finetune_images / count),
                batch_size=min(config.finetune_batch, count),
                lr=config.finetune_lr,
                schedule="cosine",
                pad=task.pad,
                flip=task.flip,
                mode="masked",
                distillation=config.finetune_distillation,
                freeze_batch_norm=config.finetune_batch_norm == "frozen",
                channels_last=True,
                seed=seed,
            )
            teacher = task.dense if config.finetune_distillation else None

            def tell(epoch: EpochReport) -> None:
                told = {FINETUNE_LOSS.name: epoch.loss, FINETUNE_ACCURACY.name: epoch.accuracy}
                task.curves.add(turn * settings.epochs + epoch.epoch, told)

            done = finetune(
                task.network,
                training.take(rows),
                policy,
                settings,
                teacher=teacher,
                on_epoch=tell,
            )
            images = done.steps * settings.batch_size
        self._recalibrate(task, config, policy)
        task.network.eval()
        return images

    def _recalibrate(self, task: Task, config: RNPConfig, policy: Policy) -> None:
        """Let the backbone's batch-norm statistics fit a policy's plans."""
        recalibrate_batch_norm(task.network, task.data.training, policy, config.calibration_batches)


def build_agent(task: Task, config: RNPConfig) -> Agent:
    """Return the agent that learns to prune the task's network, rewarded on the policy split."""
    problem = PruningProblem(
        # Environments move their own copies to where they run.
        network=copy.deepcopy(task.network).cpu(),
        data=task.data_ref,
        split="policy",
        penalty=config.penalty,
        alpha=reward_scale(
            task.network,
            # No more images than a turn decides on.
            task.data.policy.head(config.episodes_per_round),
            seed=task.seed,
            loss=config.reward_loss,
        ),
        loss=config.reward_loss,
        step_cost=cost.get(config.cost)(task.network),
        episodes=config.rounds * config.episodes_per_round,
        seed=task.seed,
        resources=task.resources,
        device=str(next(task.network.parameters()).device),
    )
    return algorithms.build(problem, config.agent)


@torch.inference_mode()
def reward_scale(
    network: PrunableNetwork,
    split: PolicySplit,
    *,
    seed: int,
    loss: AnswerLoss = "cross-entropy",
) -> float:
    """Return alpha: one over the mean loss under random plans, so that alpha x loss is about 1.

    Args:
        network: as the agent meets it.
        split: the images that rewards come from; at most 1,024 of them are read.
        seed: of the plans.
        loss: of the answer.
    """
    network.eval()
    some = split.head(min(len(split), 1024))
    policy = RandomPolicy(network.groups, len(network.sites), seed=seed)
    device = next(network.parameters()).device
    total = 0.0
    for images_BCHW, labels_B in batches(some, SCALE_BATCH, device):
        logits_BK = network.execute(images_BCHW, policy, mode="masked").logits_BK.cpu()
        total += float(answer_loss(logits_BK, labels_B, loss).sum())
    return 1.0 / max(total / len(some), 1e-3)


def _saver(agent: Agent, trained: Mapping[str, Tensor], spent: Effort) -> Callable[[Path], None]:
    """Return what writes all that `RNP._resume` reads: the backbone as all dials begin with it."""

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(trained, folder / "network.safetensors")
        agent.save_to_path(str((folder / "algorithm").absolute()))
        (folder / EFFORT).write_text(json.dumps(asdict(spent)))

    return write

"""W-Gates: filters decide by their own weights whether they stay, on what they cost.

Gates and weights learn together from the dense network on, under a loss that adds the logarithm of
the cost; the cost is MACs, or the milliseconds that LPNet predicts for this device. Then the gates
are dropped, closed filters removed for good, and the network is fine-tuned.
Source: Li et al., "Weight-dependent Gates for Network Pruning", 2020. Where the paper is silent:
the cost counts from a target on, and in the end one shift of all scores lets the network meet it.

Dimensions: B images, C channels, G groups, K classes.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

import torch
from torch import Tensor

from runtime_pruning.config import Count, NotNegative, SomeShare, config_class
from runtime_pruning.cost.predictor import Survey, WidthCost, find_predictor
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.methods.surgical import (
    Targets,
    as_targets,
    checkpoint,
    dense_backbone,
    finetune_and_report,
)
from runtime_pruning.methods.widths import best_channels, ranked, widest_within
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import pruned
from runtime_pruning.network.trainer import Learn, StepOutcome, TrainConfig, autocast, fit
from runtime_pruning.network.training import outcome_of, taught
from runtime_pruning.network.weight_gates import GatedBackbone, plain_backbone


@config_class
class WGatesConfig:
    """Settings of the method.

    Attributes:
        target: share of the dense network's cost that the pruned one may have, or several shares,
            one operating point each.
        efficiency: what costs: predicted milliseconds of one image on this device, or MACs.
        weight: of the efficiency term, ``log(1 + cost beyond the target)`` with costs as shares of
            the dense network's.
        multiple: widths are multiples of this in the end.
        least: share of a group's channels that stays at least.
        configurations: networks that are timed where no predictor of this device is found.
        gating: what training with gates may cost.
        finetune: what fine-tuning may cost.
    """

    target: Targets = 0.5
    efficiency: Literal["latency", "macs"] = "latency"
    weight: NotNegative = 2.0
    multiple: Count = 4
    least: SomeShare = 0.125
    configurations: Count = 200
    gating: FinetuneConfig = field(default_factory=FinetuneConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)


@register("w-gates")
class WGates(Method[WGatesConfig]):
    """An operating point per target, each from the dense network on."""

    config_type = WGatesConfig

    def fit(self, task: Task, config: WGatesConfig, report: Report) -> None:
        """Train gates, remove what they close, fine-tune and report."""
        dense, shape = dense_backbone(task), task.dense.image_shape
        cost: WidthCost = PrunedMacs(dense, shape)
        if config.efficiency == "latency":
            asked = Survey(configurations=config.configurations, multiple=config.multiple)
            cost = find_predictor(dense, shape, asked)
        targets = as_targets(config.target)
        for index in range(task.points_done, len(targets)):
            gated = GatedBackbone(dense_backbone(task), cost.groups)
            spent = train_gates(gated, task, config, cost, targets[index], index)
            keep = open_channels(gated.cpu(), config, cost, targets[index])
            backbone = pruned(plain_backbone(gated), shape, keep).backbone
            finetune_and_report(
                task, backbone, config.finetune, report, task.dense_effort + spent, index=index
            )


def train_gates(
    gated: GatedBackbone,
    task: Task,
    config: WGatesConfig,
    cost: WidthCost,
    target: float,
    index: int,
) -> Effort:
    """Let gates and weights learn together; return what it has cost.

    Args:
        gated: trained in place.
        task: of the trial.
        config: of the method.
        cost: of widths.
        target: share of the dense network's cost.
        index: of the point that it is for.
    """
    if not config.gating.epochs:
        return Effort()
    settings = config.gating.training(seed=task.seed, pad=task.pad, flip=task.flip)
    training = task.data.training
    images = training if config.gating.images is None else training.head(config.gating.images)
    gated.to(next(task.dense.parameters()).device)
    learn = _learning(gated, task, settings, cost, target, config.weight)
    path = checkpoint(task, index)
    own = None if path is None else path.with_stem(f"gates-{index}")
    done = fit(gated, images, settings, learn, False, own, None)
    share = len(images) / len(training)
    return Effort(epochs=len(done.epochs) * share, train_seconds=done.seconds)


def _learning(
    gated: GatedBackbone,
    task: Task,
    config: TrainConfig,
    cost: WidthCost,
    target: float,
    weight: float,
) -> Learn:
    """Return the step: labels, the dense network's answers, and what open gates cost."""
    teacher = task.dense.eval()

    def learn(images_BCHW: Tensor, labels_B: Tensor, generator: torch.Generator) -> StepOutcome:
        with autocast(config, images_BCHW.device):
            logits_BK = gated(images_BCHW).float()
            with torch.no_grad():
                teacher_BK = teacher(images_BCHW).float()
        loss = taught(logits_BK, teacher_BK, labels_B, config)
        spent = cost(gated.widths()) / cost.dense
        beyond = torch.relu(spent - target)
        torch.autograd.backward(loss + weight * torch.log1p(beyond))
        return outcome_of(loss, logits_BK, labels_B)

    return learn


@torch.no_grad()
def open_channels(
    gated: GatedBackbone, config: WGatesConfig, cost: WidthCost, target: float
) -> Mapping[str, list[int]]:
    """Return the channels that stay: the highest scores, as many as the target allows.

    One shift of all scores closes gates, or opens some again, until the cost meets the target.
    """
    scores = {group.name: torch.ones(group.channels) for group in cost.groups}
    scores |= {name: scores_C.float() for name, scores_C in gated.scores().items()}
    family = ranked(cost.groups, scores, config.multiple, config.least)
    widths_G = widest_within(cost, target * cost.dense, family)
    return {
        group.name: best_channels(scores[group.name], width)
        for group, width in zip(cost.groups, widths_G, strict=True)
    }

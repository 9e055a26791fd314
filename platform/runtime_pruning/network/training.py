"""Train a prunable network: for any width at once, under a policy's own plans, and its statistics.

Any-width training runs, in each step, the full network, the smallest one and some random plans
(one plan for the whole batch, sliced: a narrow pass costs what its MACs say). The full network
teaches the others by its soft targets.
Source: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019
(sandwich rule, in-place distillation, batch-norm statistics taken anew for the widths in use).

Dimensions: B images, C channels, H W pixels, L sites, K classes, N images of a split, P plans.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.datasets import Split, TrainingSplit, to_float
from runtime_pruning.network.batch_norm import NORMS, start_counting, stop_counting
from runtime_pruning.network.policies import Policy, RandomPolicy
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.trainer import (
    EpochReport,
    Learn,
    OnEpoch,
    StepOutcome,
    TrainConfig,
    TrainReport,
    autocast,
    fit,
    learns_fast_in_bfloat16,
)

__all__ = [
    "EpochReport",
    "TrainConfig",
    "TrainReport",
    "backward",
    "finetune",
    "learns_fast_in_bfloat16",
    "outcome_of",
    "recalibrate_batch_norm",
    "taught",
    "train",
]


def train(
    network: PrunableNetwork,
    split: TrainingSplit,
    config: TrainConfig,
    *,
    progress: bool = True,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainReport:
    """Train from the network's present weights.

    Args:
        network: trained in place, left in evaluation mode.
        split: what it learns from.
        config: see `TrainConfig`.
        progress: show a bar on standard error.
        checkpoint: file that is written after each epoch; where it exists, training goes on from
            it, bit for bit as if it had never stopped.
        on_epoch: called after each epoch.

    Raises:
        ConfigError: the checkpoint is of another training.
    """
    learn = _any_width(network, config) if config.any_width else _one_width(network, config)
    report = fit(network, split, config, learn, progress, checkpoint, on_epoch)
    if config.any_width and config.calibration_images:
        batches = -(-config.calibration_images // config.batch_size)
        policy = RandomPolicy(network.groups, len(network.sites), config.seed)
        recalibrate_batch_norm(
            network, split, policy, batches, batch_size=config.batch_size, seed=config.seed
        )
    return report


def finetune(
    network: PrunableNetwork,
    split: Split,
    policy: Policy,
    config: TrainConfig,
    *,
    teacher: PrunableNetwork | None = None,
    progress: bool = False,
    on_epoch: OnEpoch | None = None,
) -> TrainReport:
    """Train under the plans that a policy chooses; the policy does not learn.

    Args:
        network: trained in place, left in evaluation mode.
        split: what it learns from.
        policy: chooses a plan per image, from features of the network in training mode.
        config: ``any_width`` and what belongs to it is not read; ``distillation`` and
            ``temperature`` are where there is a teacher.
        teacher: its soft targets are learned from; None: cross-entropy alone.
        progress: show a bar on standard error.
        on_epoch: called after each epoch.
    """
    if teacher is not None:
        teacher.eval()

    def answer(images_BCHW: Tensor) -> Tensor:
        return network.execute(images_BCHW, policy, mode=config.mode).logits_BK

    return fit(
        network, split, config, learning_step(answer, teacher, config), progress, None, on_epoch
    )


def learning_step(
    answer: Callable[[Tensor], Tensor], teacher: nn.Module | None, config: TrainConfig
) -> Learn:
    """Return a step of learning from the labels, and from a teacher's soft targets if there is one.

    Args:
        answer: returns ``logits_BK`` of what learns.
        teacher: in evaluation mode, on the same device.
        config: how the loss is made; ``precision`` of both passes.
    """

    def learn(images_BCHW: Tensor, labels_B: Tensor, generator: torch.Generator) -> StepOutcome:
        with autocast(config, images_BCHW.device):
            logits_BK = answer(images_BCHW)
        if teacher is None:
            return backward(logits_BK, labels_B, config)
        with torch.no_grad(), autocast(config, images_BCHW.device):
            teacher_BK = teacher(images_BCHW)
        logits_BK = logits_BK.float()
        loss = taught(logits_BK, teacher_BK.float(), labels_B, config)
        torch.autograd.backward(loss)
        return outcome_of(loss, logits_BK, labels_B)

    return learn


def recalibrate_batch_norm(
    network: PrunableNetwork,
    split: Split,
    policy: Policy,
    batches: int = 8,
    *,
    batch_size: int = 256,
    seed: int = 0,
) -> None:
    """Take batch-norm statistics anew, as plain averages under the plans that are deployed.

    The policy chooses with the statistics as they were; then its plans are run, dealt to other
    images. A policy that looks gives a width to images of some kind: the statistics of these alone
    would normalise away what tells them from others. Each channel's statistics are those of the
    images that compute it; where none does they are left alone.

    Args:
        network: its running statistics change; weights and modes do not.
        split: images are drawn from it without replacement.
        policy: whose plans are run.
        batches: how many, fewer where the split is shorter; 0 leaves all as it is.
        batch_size: images per batch.
        seed: of the draw, and of the dealing.
    """
    if batches == 0:
        return
    rng = np.random.default_rng(seed)
    chosen_N = rng.permutation(len(split))[: batches * batch_size]
    parts = np.split(chosen_N, range(batch_size, len(chosen_N), batch_size))
    device = next(network.parameters()).device

    def load(rows_B: NDArray[np.int64]) -> Tensor:
        return to_float(split.images_NCHW[np.sort(rows_B)]).to(device)

    with torch.no_grad(), _counting(network) as norms:
        network.eval()
        plans_NL = torch.cat([network.plan(load(rows_B), policy) for rows_B in parts])
        if not isinstance(policy, RandomPolicy):  # which looks at nothing
            plans_NL = plans_NL[torch.from_numpy(rng.permutation(len(plans_NL)))]
        network.training = True
        for norm in norms:
            norm.train()
        start = 0
        for rows_B in parts:
            network.run(load(rows_B), plans_NL[start : start + len(rows_B)])
            start += len(rows_B)


@contextmanager
def _counting(network: PrunableNetwork) -> Iterator[Sequence[torch.nn.Module]]:
    """Let batch norm average plainly; give the modules, and restore all modes in the end."""
    modes = {module: module.training for module in network.modules()}
    norms = [module for module in modes if isinstance(module, NORMS)]
    for norm in norms:
        start_counting(norm)
    try:
        yield norms
    finally:
        for norm in norms:
            stop_counting(norm)
        for module, mode in modes.items():
            module.training = mode


def _one_width(network: PrunableNetwork, config: TrainConfig) -> Learn:
    """Return the plain step: cross-entropy of the full network."""

    def learn(images_BCHW: Tensor, labels_B: Tensor, generator: torch.Generator) -> StepOutcome:
        with autocast(config, images_BCHW.device):
            logits_BK = network(images_BCHW)
        return backward(logits_BK, labels_B, config)

    return learn


def _any_width(network: PrunableNetwork, config: TrainConfig) -> Learn:
    """Return the sandwich step: full, smallest and random plans, their losses averaged."""
    plans = config.random_plans + config.smallest
    share = 1 / (plans + config.full_weight)

    def learn(images_BCHW: Tensor, labels_B: Tensor, generator: torch.Generator) -> StepOutcome:
        with autocast(config, images_BCHW.device):
            teacher_BK = network(images_BCHW)
        outcome = backward(teacher_BK, labels_B, config, share * config.full_weight)
        size = (plans, len(network.sites))
        plans_PL = torch.randint(1, network.groups + 1, size, generator=generator)
        if config.smallest:
            plans_PL[0] = 1
        for plan_L in plans_PL:
            groups_BL = plan_L.expand(len(images_BCHW), -1)
            with autocast(config, images_BCHW.device):
                logits_BK = network.run(images_BCHW, groups_BL).logits_BK.float()
            loss = taught(logits_BK, teacher_BK.detach().float(), labels_B, config)
            torch.autograd.backward(loss * share)
        return outcome

    return learn


def backward(
    logits_BK: Tensor, labels_B: Tensor, config: TrainConfig, share: float = 1.0
) -> StepOutcome:
    """Add the gradient of a share of the cross-entropy; return the loss and the hits."""
    logits_BK = logits_BK.float()
    loss = functional.cross_entropy(logits_BK, labels_B, label_smoothing=config.label_smoothing)
    torch.autograd.backward(loss * share)
    return outcome_of(loss, logits_BK, labels_B)


def outcome_of(loss: Tensor, logits_BK: Tensor, labels_B: Tensor) -> StepOutcome:
    """Return the loss and the hits."""
    return StepOutcome(float(loss.detach()), int((logits_BK.argmax(1) == labels_B).sum()))


def taught(logits_BK: Tensor, teacher_BK: Tensor, labels_B: Tensor, config: TrainConfig) -> Tensor:
    """Return a taught pass's loss, nats: soft targets and labels, mixed as the settings say."""
    temperature = config.temperature
    soft = functional.kl_div(
        functional.log_softmax(logits_BK / temperature, 1),
        functional.log_softmax(teacher_BK / temperature, 1),
        log_target=True,
        reduction="batchmean",
    )
    loss = config.distillation * temperature**2 * soft
    if config.distillation < 1:
        hard = functional.cross_entropy(logits_BK, labels_B, label_smoothing=config.label_smoothing)
        loss = loss + (1 - config.distillation) * hard
    return loss

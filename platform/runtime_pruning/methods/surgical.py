"""What methods share that remove channels for good: from surgery to an operating point."""

import copy
import time
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field
from torch import nn

from runtime_pruning.config import SomeShare
from runtime_pruning.methods.base import Effort, Report, Task
from runtime_pruning.network.finetuning import FinetuneConfig, distil
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.tracing import trace
from runtime_pruning.network.training import recalibrate_batch_norm
from runtime_pruning.network.weight_sparsity import Masks

# One share, which a search may draw, or several: as many operating points of one trial.
Targets: TypeAlias = SomeShare | Annotated[tuple[SomeShare, ...], Field(min_length=1)]


def as_targets(told: float | tuple[float, ...]) -> tuple[float, ...]:
    """Return the shares that a trial is to reach, one operating point each."""
    return told if isinstance(told, tuple) else (told,)


def checkpoint(task: Task, index: int) -> Path | None:
    """Return where the training of a trial's point keeps how far it is."""
    return None if task.work is None else task.work / f"training-{index}.pt"


def dense_backbone(task: Task) -> nn.Module:
    """Return a copy of the dense network's backbone, on the CPU, in evaluation mode."""
    return copy.deepcopy(task.dense.backbone).cpu().eval()


def finetune_and_report(
    task: Task,
    backbone: nn.Module,
    config: FinetuneConfig,
    report: Report,
    spent: Effort,
    *,
    index: int,
    masks: Masks | None = None,
) -> None:
    """Fine-tune a network after surgery, and report it as one operating point.

    The dense network teaches, where the settings want a teacher. A checkpoint lies in the trial's
    folder.

    Args:
        task: of the trial.
        backbone: on the CPU.
        config: what fine-tuning may cost.
        report: of the trial.
        spent: what the network has cost before.
        index: which of the trial's points it is.
        masks: of the backbone's layers, where single weights are pruned.
    """
    device = next(task.dense.parameters()).device
    streams = task.dense.graph.streams
    network = trace(backbone.eval(), task.dense.image_shape, groups=1, streams=streams).to(device)
    training, started = task.data.training, time.monotonic()
    images = training if config.images is None else training.head(config.images)
    policy, epochs = FixedPolicy(network.uniform(1)), 0.0
    if config.epochs:
        done = distil(
            network,
            images,
            config.training(seed=task.seed, pad=task.pad, flip=task.flip),
            teacher=task.dense if config.distillation else None,
            masks={f"backbone.{name}": mask for name, mask in (masks or {}).items()},
            checkpoint=checkpoint(task, index),
        )
        epochs, seconds = len(done.epochs) * len(images) / len(training), done.seconds
    else:  # the weights are as they were; what they see is not
        recalibrate_batch_norm(network, training, policy)
        seconds = time.monotonic() - started
    report(policy, network, spent + Effort(epochs=epochs, train_seconds=seconds))

"""Fine-tune a network that lost channels or weights, taught by the network that it comes from.

Source of the loss: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.

Dimensions: B images, C channels, H W pixels, K classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from runtime_pruning.config import Count, CountOrNone, NotNegative, Positive, Share, config_class
from runtime_pruning.datasets import Split
from runtime_pruning.network.trainer import (
    OnEpoch,
    Schedule,
    TrainConfig,
    TrainReport,
    fit,
)
from runtime_pruning.network.training import learning_step
from runtime_pruning.network.weight_sparsity import apply_masks


@config_class
class FinetuneConfig:
    """What fine-tuning may cost, and how it learns.

    Attributes:
        epochs: passes over the images; 0 leaves the network as it is.
        images: that an epoch passes over, the first of the training split; None: all.
        batch_size: images per step.
        lr: largest learning rate.
        schedule: ``"cosine"`` falls from the start, ``"one-cycle"`` rises over the first quarter.
        weight_decay: on weights, not on biases and batch norm.
        distillation: share of the loss that the teacher's soft targets give; the labels' cross
            entropy has the rest.
        temperature: of the soft targets.
    """

    epochs: CountOrNone = 10
    images: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Positive = 0.02
    schedule: Schedule = "cosine"
    weight_decay: NotNegative = 5e-4
    distillation: Share = 0.7
    temperature: Positive = 4.0

    def training(self, *, seed: int, pad: int = 0, flip: bool = False) -> TrainConfig:
        """Return the settings of the loop.

        Args:
            seed: of order and augmentation.
            pad: pixels of zero padding before a random crop.
            flip: mirror half of the images.
        """
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            distillation=self.distillation,
            temperature=self.temperature,
            any_width=False,
            pad=pad,
            flip=flip,
            seed=seed,
        )


def distil(
    student: nn.Module,
    split: Split,
    config: TrainConfig,
    *,
    teacher: nn.Module | None = None,
    masks: Mapping[str, Tensor] | None = None,
    progress: bool = False,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainReport:
    """Train a network on the labels and on what a teacher answers to the same images.

    Args:
        student: gives logits; trained in place, left in evaluation mode.
        split: what it learns from.
        config: ``distillation`` and ``temperature`` are read where there is a teacher;
            ``any_width`` and what belongs to it is not.
        teacher: put into evaluation mode, on the student's device; None: cross-entropy alone.
        masks: of `magnitude_masks`: these weights are zero in each pass, and in the end.
        progress: show a bar on standard error.
        checkpoint: written after each epoch and every ten minutes within one; where it exists,
            training goes on from it, bit for bit as if it had never stopped.
        on_epoch: called after each epoch.

    Raises:
        ConfigError: the checkpoint is of another training.
        DivergedError: a loss that is not finite.
    """
    if teacher is not None:
        teacher.eval()
    kept = masks or {}

    def answer(images_BCHW: Tensor) -> Tensor:
        apply_masks(student, kept)
        logits_BK: Tensor = student(images_BCHW)
        return logits_BK

    learn = learning_step(answer, teacher, config)
    report = fit(student, split, config, learn, progress, checkpoint, on_epoch)
    apply_masks(student, kept)
    return report

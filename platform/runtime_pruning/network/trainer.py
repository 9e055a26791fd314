"""The loop under all training: epochs, learning rate, progress, checkpoints.

Dimensions: B images, C channels, H W pixels.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from runtime_pruning.config import (
    CountOrNone,
    NotNegative,
    PartShare,
    Positive,
    Share,
    config_class,
)
from runtime_pruning.datasets import Split, augment, to_float
from runtime_pruning.errors import ConfigError, DataError, DivergedError
from runtime_pruning.files import replacing
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.staged_run import Mode
from runtime_pruning.network.workers import Workers

Schedule = Literal["cosine", "one-cycle"]
Precision = Literal["auto", "float32", "bfloat16"]

CHECKPOINT_SECONDS = 600.0
_WARM_UP = 0.25  # share of a one-cycle schedule that rises
_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}  # as /proc/cpuinfo calls them


@config_class
class TrainConfig:
    """How a network is trained.

    Attributes:
        epochs: passes over the split.
        batch_size: images per step; what is left over at the end of an epoch is dropped.
        lr: largest learning rate.
        schedule: ``"cosine"`` falls from the start, ``"one-cycle"`` rises over the first quarter.
        momentum: Nesterov's.
        weight_decay: on weights, not on biases and batch norm.
        pad: pixels of zero padding before a random crop.
        flip: mirror half of the images.
        label_smoothing: probability mass moved off the label.
        any_width: train the smallest and random widths beside the full one.
        smallest: whether the smallest width is part of each step.
        random_plans: random plans per step, beside the full and the smallest.
        full_weight: weight of the full network's own loss; each narrow pass weighs 1.
        distillation: share of the narrow passes' loss that the full network's soft targets give.
        temperature: of the soft targets.
        calibration_images: images over which batch-norm statistics are taken anew, under random
            plans, when any-width training ends.
        freeze_batch_norm: keep batch-norm statistics as they are (fine-tuning).
        mode: how fine-tuning runs the policy's plans; images with plans of their own learn faster
            masked.
        precision: ``"auto"`` is bfloat16 where the device is fast at it.
        channels_last: memory layout of weights and images while training lasts.
        seed: of order, augmentation, plans and dropout.
    """

    epochs: CountOrNone = 10
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Positive = 0.1
    schedule: Schedule = "one-cycle"
    momentum: PartShare = 0.9
    weight_decay: NotNegative = 5e-4
    pad: CountOrNone = 0
    flip: bool = False
    label_smoothing: PartShare = 0.0
    any_width: bool = True
    smallest: bool = True
    random_plans: CountOrNone = 2
    full_weight: NotNegative = 1.0
    distillation: Share = 1.0
    temperature: Positive = 1.0
    calibration_images: CountOrNone = 2048
    freeze_batch_norm: bool = False
    mode: Mode = "masked"
    precision: Precision = "auto"
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.full_weight + self.smallest + self.random_plans > 0:
            raise ValueError(
                "`full_weight + smallest + random_plans > 0` must hold, but got "
                f"{self.full_weight} + {self.smallest} + {self.random_plans}."
            )

    def changed(self) -> dict[str, Any]:
        """Return the settings that are not at their defaults: what a checkpoint is known by."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            field.name: own[field.name]
            for field in fields(self)
            if own[field.name] != field.default
        }


class StepOutcome(NamedTuple):
    """What one step tells."""

    loss: float  # mean over the batch, nats
    hits: int  # images whose label was predicted


class EpochReport(NamedTuple):
    """One epoch, measured on the training images as they went by."""

    epoch: int  # from 1
    loss: float  # mean cross-entropy, nats
    accuracy: float  # in [0, 1]
    seconds: float


@dataclass(frozen=True)
class TrainReport:
    """What training did.

    Attributes:
        epochs: one report each, those before a resumption included.
        steps: optimiser steps.
    """

    epochs: tuple[EpochReport, ...]
    steps: int

    @property
    def seconds(self) -> float:
        """Time spent in epochs."""
        return sum(epoch.seconds for epoch in self.epochs)


# Adds gradients for one batch: (images_BCHW, labels_B, generator) -> outcome.
Learn: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], StepOutcome]
OnEpoch: TypeAlias = Callable[[EpochReport], None]


def learning_rate(config: TrainConfig, done: float) -> float:
    """Return the learning rate when a share ``done`` of all steps, in [0, 1], has been taken."""
    if config.schedule == "one-cycle":
        if done < _WARM_UP:
            return config.lr * (0.04 + 0.96 * done / _WARM_UP)
        done = (done - _WARM_UP) / (1 - _WARM_UP)
    return config.lr * (1 + math.cos(math.pi * done)) / 2


def learns_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has matrix units or dot products for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    info = Path("/proc/cpuinfo")
    if device.type != "cpu" or not info.exists():
        return False
    return not _BFLOAT16_FLAGS.isdisjoint(info.read_text().split())


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that forward passes run in."""
    wanted = config.precision == "bfloat16"
    if config.precision == "auto":
        wanted = learns_fast_in_bfloat16(device)
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def fit(
    network: nn.Module,
    split: Split,
    config: TrainConfig,
    learn: Learn,
    progress: bool,
    checkpoint: Path | None,
    on_epoch: OnEpoch | None,
) -> TrainReport:
    """Run all epochs, then put the network into evaluation mode.

    Where torch's default process group is initialised, its processes train together.

    Raises:
        ConfigError: the checkpoint is of another training, or of another number of workers.
        DataError: the split is shorter than two images.
        DivergedError: a loss that is not finite.
    """
    if len(split) < 2:
        raise DataError(f"Training needs at least 2 images, but got {len(split)}.")
    trainer = Trainer(network, split, config, checkpoint)
    if checkpoint is not None and checkpoint.exists():
        trainer.load(checkpoint)
    bar = tqdm(
        total=config.epochs * trainer.steps_per_epoch,
        initial=len(trainer.reports) * trainer.steps_per_epoch + trainer.epoch.step,
        desc="train",
        disable=not progress or trainer.workers.rank > 0,
    )
    # Dropout draws from torch's global generator: seed it here, restore it afterwards.
    with bar, torch.random.fork_rng(devices=[]):
        trainer.seed_global()
        while len(trainer.reports) < config.epochs:
            report = trainer.run_epoch(learn, bar)
            trainer.save()
            if on_epoch is not None:
                on_epoch(report)
    network.to(memory_format=torch.contiguous_format)
    network.eval()
    return TrainReport(tuple(trainer.reports), len(trainer.reports) * trainer.steps_per_epoch)


@dataclass
class _Epoch:
    """How far an epoch has come."""

    order_N: Tensor | None = None  # of the images; None before it begins
    step: int = 0
    losses: float = 0.0  # sum over steps
    hits: float = 0.0
    seconds: float = 0.0


class Trainer:
    """Everything that a training carries from step to step.

    Args:
        network: trained in place, with all that its buffers hold.
        split: what it learns from.
        config: see `TrainConfig`.
        checkpoint: written after each epoch, and within one every `CHECKPOINT_SECONDS`.

    Attributes:
        workers: that train together, this process among them.
        steps_per_epoch: optimiser steps.
        reports: of the epochs that are done.
        epoch: the one that is under way.
    """

    def __init__(
        self, network: nn.Module, split: Split, config: TrainConfig, checkpoint: Path | None
    ) -> None:
        self.network, self.split, self.config = network, split, config
        self.workers = Workers.of_process_group()
        self.reports: list[EpochReport] = []
        self.epoch = _Epoch()
        self._batch = min(config.batch_size, len(split))
        self.workers.check(self._batch)
        self.steps_per_epoch = len(split) // self._batch
        self._checkpoint = checkpoint
        self._device = next(network.parameters()).device
        self._generator = torch.Generator().manual_seed(config.seed)
        self._global_rng: Tensor | None = None
        self._labels_N = torch.from_numpy(np.array(split.labels_N, dtype=np.int64))
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.SGD(
            _decayed(network, config.weight_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
        )

    def seed_global(self) -> None:
        """Set torch's global generator to where this training stands."""
        if self._global_rng is None:
            torch.manual_seed(self.config.seed)
        else:
            torch.set_rng_state(self._global_rng)

    def run_epoch(self, learn: Learn, bar: Any) -> EpochReport:
        """Run one epoch, or what is left of it, and return its report."""
        epoch, began = self.epoch, time.perf_counter()
        saved = began
        self._set_modes()
        if epoch.order_N is None:
            epoch.order_N = torch.randperm(len(self.split), generator=self._generator)
        while epoch.step < self.steps_per_epoch:
            taken = len(self.reports) * self.steps_per_epoch + epoch.step
            self._set_lr(taken / (self.config.epochs * self.steps_per_epoch))
            first = epoch.step * self._batch
            loss, hits = self._step(learn, epoch.order_N[first : first + self._batch])
            epoch.step += 1
            self._check(loss)
            epoch.losses, epoch.hits = epoch.losses + loss, epoch.hits + hits
            bar.set_postfix(loss=f"{epoch.losses / epoch.step:.3f}", refresh=False)
            bar.update()
            now = time.perf_counter()
            if now - saved >= CHECKPOINT_SECONDS and epoch.step < self.steps_per_epoch:
                epoch.seconds, began, saved = epoch.seconds + now - began, now, now
                self.save()
        report = EpochReport(
            epoch=len(self.reports) + 1,
            loss=epoch.losses / self.steps_per_epoch,
            accuracy=epoch.hits / (self.steps_per_epoch * self._batch),
            seconds=epoch.seconds + time.perf_counter() - began,
        )
        self.reports.append(report)
        self.epoch = _Epoch()
        return report

    def _check(self, loss: float) -> None:
        """Raise where a loss is no number any more."""
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is {loss} at step {self.epoch.step} of epoch {len(self.reports) + 1}: "
                f"lower the learning rate, which is {self.config.lr:g} at its highest."
            )

    def _step(self, learn: Learn, rows_B: Tensor) -> tuple[float, float]:
        """Take one optimiser step; return the mean loss, and the hits of all workers."""
        config, rows_B = self.config, self.workers.share(rows_B)
        images_BCHW = augment(
            to_float(self.split.images_NCHW[rows_B.numpy()]),
            pad=config.pad,
            flip=config.flip,
            generator=self._generator,
        ).to(self._device)
        if config.channels_last:
            images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        self._optimiser.zero_grad(set_to_none=True)
        outcome = learn(images_BCHW, self._labels_N[rows_B].to(self._device), self._generator)
        numbers = (outcome.loss, float(outcome.hits))
        loss, hits = self.workers.average(self.network, numbers)
        self._optimiser.step()
        return loss, hits * self.workers.size

    def _set_modes(self) -> None:
        """Put the network into training mode, batch norm excepted where it is frozen."""
        self.network.train()
        if self.config.freeze_batch_norm:
            for module in self.network.modules():
                if isinstance(module, NORMS):
                    module.eval()

    def _set_lr(self, done: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self.config, done)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; the first worker does it for all."""
        if self._checkpoint is None or self.workers.rank > 0:
            return
        state = {
            "config": self.config.changed(),
            "images": len(self.split),
            "workers": self.workers.size,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "global_rng": torch.get_rng_state(),
            "reports": [tuple(report) for report in self.reports],
            "epoch": vars(self.epoch),
        }
        with replacing(self._checkpoint) as unfinished:
            torch.save(state, unfinished)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same training."""
        saved = torch.load(path, weights_only=True, map_location="cpu")
        own = {
            "config": self.config.changed(),
            "images": len(self.split),
            "workers": self.workers.size,
        }
        for what, value in own.items():
            if saved[what] != value:
                raise ConfigError(
                    f"The checkpoint {path.name!r} is of another training: its {what} is "
                    f"{saved[what]}, not {value}. Delete it or name another."
                )
        self.network.load_state_dict(saved["network"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._generator.set_state(saved["generator"])
        self._global_rng = saved["global_rng"]
        self.reports = [EpochReport(*report) for report in saved["reports"]]
        self.epoch = _Epoch(**saved["epoch"])


def _decayed(network: nn.Module, weight_decay: float) -> Iterable[dict[str, Any]]:
    """Return parameter groups: weights decay, but for those of modules that are ``undecayed``."""
    still = [module for module in network.modules() if getattr(module, "undecayed", False)]
    exempt = {id(parameter) for module in still for parameter in module.parameters()}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim <= 1 or id(parameter) in exempt].append(parameter)
    return [{"params": groups[i], "weight_decay": (weight_decay, 0.0)[i]} for i in range(2)]

"""ManiDP: every image computes the channels that are salient for it, wherever they lie.

Source: Tang et al., "Manifold Regularized Dynamic Network Pruning", CVPR 2021; what is learned, and
by which losses, stands in `runtime_pruning.network.manifold`.

It starts from the dense network. One training gives one operating point, that of its last epoch:
thresholds follow a schedule, so that none before it has the cost that was asked for.

Dimensions: B images.
"""

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from runtime_pruning.config import (
    Count,
    NotNegative,
    PartShare,
    Positive,
    SomeShare,
    config_class,
)
from runtime_pruning.datasets import Split, augment, to_float
from runtime_pruning.datasets.cache import cache_folder
from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.manifold import ManifoldConfig, ManifoldModel, train_manifold
from runtime_pruning.network.saliency import SubsetPolicy, saliency_policy
from runtime_pruning.network.structure import structure_key, weights_hash
from runtime_pruning.network.trainer import EpochReport, Precision, TrainConfig

BOUND_IMAGES = 4096  # of the training split, on which the first period's bound is measured
_BATCH = 256


@config_class
class ManidpConfig:
    """Settings of ManiDP; the release's values for ResNet-56 where it has some.

    Attributes:
        keep: share of each site's channels at which the schedule of thresholds ends. What is really
            kept differs, and is measured.
        epochs: of training, of which the release takes 400.
        sparsity: weight of the mean saliency of easy images.
        alignment: weight of the distance between similarities.
        easy: an image is easy below this share of the mean cross-entropy of the last period.
        gamma: power of an easy image's weight.
        periods_per_epoch: how often an epoch thresholds are set, once in the release.
        settle: share of the epochs, at the end, for which the schedule stays at ``keep``.
        clamp: saliencies, which multiply channels, grow up to this: 10 suits ResNet-20, 1
            ResNet-56; the release's 1,000 diverges.
        squeeze: by what a branch is narrower inside than its output, on sites of 80 channels or
            more.
        init_scale: of the branches' last weights at the start; 1 is the release's, which changes
            what the dense network computes before it has learned anything.
        batch_size: see `TrainConfig`.
        lr: likewise; it falls by a cosine.
        weight_decay: likewise; none on the branches.
        precision: likewise.
    """

    keep: SomeShare = 0.6
    epochs: Count = 400
    sparsity: NotNegative = 5e-3
    alignment: NotNegative = 0.1
    easy: Positive = 0.5
    gamma: NotNegative = 1.0
    periods_per_epoch: Count = 8
    settle: PartShare = 0.0
    clamp: Positive = 10.0
    squeeze: Count = 2
    init_scale: Positive = 0.1
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Positive = 0.05
    weight_decay: NotNegative = 5e-4
    precision: Precision = "auto"

    def manifold(self) -> ManifoldConfig:
        """Return what is asked of the saliencies."""
        return ManifoldConfig(
            keep=self.keep,
            sparsity=self.sparsity,
            alignment=self.alignment,
            easy=self.easy,
            gamma=self.gamma,
            periods_per_epoch=self.periods_per_epoch,
            settle=self.settle,
        )

    def training(self, task: Task) -> TrainConfig:
        """Return how network and branches learn."""
        return TrainConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule="cosine",
            weight_decay=self.weight_decay,
            precision=self.precision,
            pad=task.pad,
            flip=task.flip,
            any_width=False,
            seed=task.seed,
        )


@register("manidp")
class Manidp(Method[ManidpConfig]):
    """One operating point: a subset of channels for each image, and only these computed.

    A training that is interrupted goes on from its checkpoint, in the user's cache.
    """

    config_type = ManidpConfig
    plans_groups = False

    def fit(self, task: Task, config: ManidpConfig, report: Report) -> None:
        """Train, and report the last epoch's point."""
        if task.points_done:
            return
        network = copy.deepcopy(task.dense)
        policy = _policy(network, config, task.seed)
        training = config.training(task)
        checkpoint = _checkpoint(task, config)
        bound = mean_loss(network, policy, task.data.training, training)
        told = train_manifold(
            network,
            policy,
            task.data.training,
            config.manifold(),
            training,
            first_bound=bound,
            checkpoint=checkpoint,
            on_epoch=_tell,
        )
        effort = Effort(epochs=len(told.epochs), train_seconds=told.seconds)
        report(policy.eval(), network, task.dense_effort + effort)


def _policy(network: PrunableNetwork, config: ManidpConfig, seed: int) -> SubsetPolicy:
    """Return the policy before it has learned anything."""
    policy = saliency_policy(
        network,
        squeeze=config.squeeze,
        most=config.clamp,
        init_scale=config.init_scale,
        seed=seed,
    )
    policy.name = f"salient channels, keep {config.keep:g}"
    return policy.to(next(network.parameters()).device)


@torch.inference_mode()
def mean_loss(
    network: PrunableNetwork, policy: SubsetPolicy, split: Split, training: TrainConfig
) -> float:
    """Return the mean cross-entropy, in nats, on some augmented images of a split.

    Args:
        network: is put into evaluation mode.
        policy: that runs.
        split: `BOUND_IMAGES` images are drawn from it.
        training: names augmentation and seed.
    """
    network.eval()
    device = next(network.parameters()).device
    rng = np.random.default_rng(training.seed)
    chosen_N = np.sort(rng.permutation(len(split))[:BOUND_IMAGES])
    generator = torch.Generator().manual_seed(training.seed)
    total = 0.0
    for start in range(0, len(chosen_N), _BATCH):
        rows_B = chosen_N[start : start + _BATCH]
        images_BCHW = augment(
            to_float(split.images_NCHW[rows_B]),
            pad=training.pad,
            flip=training.flip,
            generator=generator,
        )
        labels_B = torch.from_numpy(np.array(split.labels_N)[rows_B]).to(device)
        logits_BK = network.execute(images_BCHW.to(device), policy, mode="masked").logits_BK
        total += float(functional.cross_entropy(logits_BK.float(), labels_B, reduction="sum"))
    return total / len(chosen_N)


def _checkpoint(task: Task, config: ManidpConfig) -> Path:
    """Return where a training keeps its state: named by all that it depends on."""
    made_of = {
        "config": asdict(config),
        "training": config.training(task).changed(),
        "structure": structure_key(task.dense),
        "weights": weights_hash(task.dense),
        "images": task.data.training.content_hash(),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "training" / f"manidp-{key}.pt"


def _tell(report: EpochReport, model: ManifoldModel) -> None:
    """Say how far a training is, and what share of channels images keep."""
    print(
        f"manidp: epoch {report.epoch}, loss {report.loss:.3f}, training {report.accuracy:.2%}, "
        f"kept {float(model.realised_L.mean()):.1%}, {report.seconds:.0f} s",
        flush=True,
    )

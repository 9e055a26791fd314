"""ManiDP: train a network and the saliency of its channels together, thresholds by a schedule.

Three losses: cross-entropy; the mean saliency of *easy* images (their cross-entropy lies below a
share of the last period's mean), the more the easier; and the distance between how alike images
are in a site's features and how alike in its saliencies. After each period a site's threshold
becomes the quantile of its channels' mean saliencies that the schedule asks for. A period is an
epoch in the release, which takes 400; a short training needs several an epoch, or thresholds jump.
Since a quantile of means is applied to single images, the share of channels that is really kept
differs: it is measured.

Source: Tang et al., "Manifold Regularized Dynamic Network Pruning", CVPR 2021, equations (4) to
(11), and its release, which computes everything and multiplies. Other than there, an image's
weight is a number to the optimiser: no gradient asks for a larger cross-entropy.

Dimensions: B images, C channels, F features, L sites, K classes.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.config import (
    Count,
    NotNegative,
    PartShare,
    Positive,
    SomeShare,
    config_class,
)
from runtime_pruning.datasets import Split
from runtime_pruning.errors import ConfigError, DivergedError
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import SubsetRun
from runtime_pruning.network.trainer import (
    EpochReport,
    Learn,
    StepOutcome,
    TrainConfig,
    TrainReport,
    autocast,
    fit,
)


@config_class
class ManifoldConfig:
    """What is asked of the saliencies.

    Attributes:
        keep: share of each site's channels at which the schedule of thresholds ends.
        sparsity: weight of the mean saliency of easy images.
        alignment: weight of the distance between similarities.
        easy: an image is easy below this share of the mean cross-entropy of the last period.
        gamma: power of an easy image's weight.
        periods_per_epoch: how often an epoch thresholds are set.
        settle: share of the training, at its end, for which the schedule stays at ``keep``. The
            release has none, and 400 epochs, of which the cosine's last 80 lie near its end.
    """

    keep: SomeShare = 0.6
    sparsity: NotNegative = 5e-3
    alignment: NotNegative = 0.1
    easy: Positive = 0.5
    gamma: NotNegative = 1.0
    periods_per_epoch: Count = 1
    settle: PartShare = 0.0


def scheduled_keep(keep: float, period: int, periods: int) -> float:
    """Return the share of channels to keep after a period (from 0): a cosine from 1 to ``keep``."""
    return (1 - keep) / 2 * math.cos(math.pi * (period + 1) / periods) + (1 + keep) / 2


def threshold_at(mean_C: Tensor, keep: float) -> float:
    """Return the saliency that a share of the channels' means, rounded up, reaches."""
    ordered_C = mean_C.sort(descending=True).values
    return float(ordered_C[max(1, math.ceil(keep * len(mean_C))) - 1])


def easiness(losses_B: Tensor, bound: float, gamma: float) -> Tensor:
    """Return ``weight_B`` in [0, 1]: how easy images are; 0 from a cross-entropy ``bound`` on."""
    if bound <= 0:
        return torch.zeros_like(losses_B)
    left_B = (bound - losses_B.detach()) / bound
    return torch.where(left_B > 0, left_B.clamp(min=1e-10) ** gamma, 0.0)


def misalignment(features_BC: Tensor, saliency_BC: Tensor) -> Tensor:
    """Return the squared distance between two cosine-similarity matrices, over B squared."""
    alike = [functional.normalize(part_BC, dim=1) for part_BC in (features_BC, saliency_BC)]
    return (alike[0] @ alike[0].T - alike[1] @ alike[1].T).square().mean()


class ManifoldModel(nn.Module):
    """Network and policy in training, and what a period adds up: all that a checkpoint holds.

    Args:
        network: at full width in its groups.
        policy: of salient channels, for this network.
        config: see `ManifoldConfig`.
        steps: of the whole training.
        periods: of the schedule, as even as whole steps are.

    Attributes:
        realised_L: share of each site's channels that training images kept in the last period.
    """

    bound: Tensor
    steps: Tensor
    loss_sum: Tensor
    images: Tensor
    realised_L: Tensor
    kept_L: Tensor

    def __init__(
        self,
        network: PrunableNetwork,
        policy: SubsetPolicy,
        config: ManifoldConfig,
        steps: int,
        periods: int,
    ) -> None:
        super().__init__()
        self.network, self.policy = network, policy
        self._config, self._steps, self._periods = config, steps, periods
        sites = len(network.sites)
        for name, shape in {
            "bound": (),
            "loss_sum": (),
            "realised_L": (sites,),
            "kept_L": (sites,),
        }.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))
        for name in ("steps", "images"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        for site in network.sites:
            self.register_buffer(
                f"sum_{site.index}", torch.zeros(site.channels, dtype=torch.float64)
            )

    def learner(self, training: TrainConfig) -> Learn:
        """Return the step."""

        def learn(images_BCHW: Tensor, labels_B: Tensor, _: torch.Generator) -> StepOutcome:
            with autocast(training, images_BCHW.device):
                run = SubsetRun(self.network, images_BCHW, self.policy, "masked").finish()
            logits_BK = run.logits_BK.float()
            losses_B = functional.cross_entropy(logits_BK, labels_B, reduction="none")
            loss = losses_B.mean() + self._regulariser(run, losses_B)
            self._check(loss)
            torch.autograd.backward(loss)
            self._note(run, losses_B.detach())
            hits = int((logits_BK.argmax(1) == labels_B).sum())
            return StepOutcome(float(losses_B.detach().mean()), hits)

        return learn

    def _regulariser(self, run: SubsetRun, losses_B: Tensor) -> Tensor:
        """Return the sparsity of easy images and the misalignment, summed over sites."""
        config = self._config
        weight_B = easiness(losses_B, config.easy * float(self.bound), config.gamma)
        total = losses_B.new_zeros(())
        for saliency_BC, pooled_BC in zip(run.saliencies, run.pooled, strict=True):
            total = total + config.sparsity * (weight_B * saliency_BC.mean(1)).mean()
            total = total + config.alignment * misalignment(pooled_BC, saliency_BC)
        return total

    def _check(self, loss: Tensor) -> None:
        """Raise where a loss is no number any more."""
        if not math.isfinite(float(loss.detach())):
            most = self.policy.branch(0).most
            raise DivergedError(
                f"The loss is {float(loss.detach())} at step {int(self.steps) + 1}: saliencies, "
                f"which multiply channels, may grow up to `clamp: {most:g}`. Lower it (10 is for "
                "ResNet-20, 1 for ResNet-56), or the learning rate."
            )

    @torch.no_grad()
    def _note(self, run: SubsetRun, losses_B: Tensor) -> None:
        """Add a step to the period, and end that where it was the last."""
        self.loss_sum += losses_B.double().sum()
        self.images += len(losses_B)
        for site, saliency_BC in enumerate(run.saliencies):
            self._sums(site).add_(saliency_BC.double().sum(0))
            self.kept_L[site] += run.kept[site].double().mean(1).sum()
        self.steps += 1
        before, now = (
            step * self._periods // self._steps for step in (int(self.steps) - 1, int(self.steps))
        )
        if now > before:
            self._end_period(now - 1)

    def _end_period(self, period: int) -> None:
        """Set what the next one goes by; the first leaves all channels running, as released."""
        self.bound.copy_(self.loss_sum / self.images)
        self.realised_L.copy_(self.kept_L / self.images)
        if period >= 1 or self._periods == 1:
            falling = max(1, round(self._periods * (1 - self._config.settle)))
            keep = scheduled_keep(self._config.keep, min(period, falling - 1), falling)
            for site in range(len(self.network.sites)):
                mean_C = (self._sums(site) / self.images).float()
                self.policy.thresholds_L[site] = threshold_at(mean_C, keep)
        for total in (
            self.loss_sum,
            self.images,
            self.kept_L,
            *map(self._sums, range(len(self.kept_L))),
        ):
            total.zero_()

    def _sums(self, site: int) -> Tensor:
        """Return a site's saliencies, summed over the period's images."""
        sums_C: Tensor = self.get_buffer(f"sum_{site}")
        return sums_C


OnManifoldEpoch: TypeAlias = Callable[[EpochReport, ManifoldModel], None]


def train_manifold(
    network: PrunableNetwork,
    policy: SubsetPolicy,
    split: Split,
    config: ManifoldConfig,
    training: TrainConfig,
    *,
    first_bound: float,
    checkpoint: Path | None = None,
    on_epoch: OnManifoldEpoch | None = None,
) -> TrainReport:
    """Train a network and the saliency of its channels, from their present weights.

    Args:
        network: trained in place, left in evaluation mode.
        policy: likewise; its thresholds are those after the last epoch.
        split: what both learn from.
        config: see `ManifoldConfig`.
        training: epochs, rates, augmentation; what belongs to ``any_width`` is not read.
        first_bound: mean cross-entropy, in nats, that the first period goes by.
        checkpoint: file that is written after each epoch, and within one every ten minutes; where
            it exists, training goes on from it, bit for bit as if it had never stopped.
        on_epoch: called after each epoch, with what it has added up.

    Raises:
        ConfigError: the checkpoint is of another training, the policy of another network, or there
            are more periods than steps.
        DivergedError: a loss that is not finite.
    """
    policy.check_fits(network)
    batch = min(training.batch_size, max(1, len(split)))
    steps_per_epoch = len(split) // batch
    if config.periods_per_epoch > steps_per_epoch:
        raise ConfigError(
            "`periods_per_epoch <= steps per epoch` must hold, but got "
            f"{config.periods_per_epoch} and {steps_per_epoch}."
        )
    steps = training.epochs * steps_per_epoch
    model = ManifoldModel(
        network, policy, config, steps, training.epochs * config.periods_per_epoch
    )
    model.bound.fill_(first_bound)

    def tell(report: EpochReport) -> None:
        if on_epoch is not None:
            on_epoch(report, model)

    return fit(model, split, training, model.learner(training), False, checkpoint, tell)

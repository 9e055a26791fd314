"""A narrower network of the same family, trained from chance: the RNP paper's own baseline.

What pruning is worth shows against a network of the same cost that nothing was removed from.
"""

import math
from collections.abc import Mapping
from dataclasses import field, replace

from runtime_pruning import backbones
from runtime_pruning.config import Count, CountOrNone, Positive, Share, config_class
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.methods.surgical import Targets, as_targets, finetune_and_report
from runtime_pruning.methods.widths import uniform, widest_within
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import pruned
from runtime_pruning.network.trainer import Schedule


@config_class
class AloneConfig(FinetuneConfig):
    """How the narrow network learns: from chance, and by default from the labels alone.

    Attributes:
        epochs: passes over the images; 0 stands for as many as the dense network was trained for.
    """

    epochs: CountOrNone = 0
    lr: Positive = 0.1
    schedule: Schedule = "one-cycle"
    distillation: Share = 0.0


@config_class
class VanillaConfig:
    """Settings of the method.

    Attributes:
        macs: share of the dense network's MACs that the narrow one may cost, or several shares,
            one operating point each.
        multiple: widths are multiples of this.
        training: what training may cost.
    """

    macs: Targets = 0.5
    multiple: Count = 4
    training: AloneConfig = field(default_factory=AloneConfig)


@register("vanilla")
class Vanilla(Method[VanillaConfig]):
    """An operating point per target: all groups at one share of their channels, from chance."""

    config_type = VanillaConfig

    def budgets(self, config: VanillaConfig) -> Mapping[str, float]:
        """Return the largest target."""
        return {"macs": max(as_targets(config.macs))}

    def fit(self, task: Task, config: VanillaConfig, report: Report) -> None:
        """Build, train and report, one target after the other."""
        shape = task.dense.image_shape
        fresh = backbones.create(
            task.backbone,
            num_classes=task.dense.num_classes,
            image_shape=shape,
            seed=task.seed,
        )
        macs, targets = PrunedMacs(fresh, shape), as_targets(config.macs)
        family = uniform(macs.groups, config.multiple)
        widths = [widest_within(macs, target * macs.dense, family) for target in targets]
        training = replace(config.training, epochs=config.training.epochs or _as_dense(task))
        for index in range(task.points_done, len(targets)):
            keep = {
                group.name: range(width)
                for group, width in zip(macs.groups, widths[index], strict=True)
            }
            narrow = pruned(fresh, shape, keep).backbone
            finetune_and_report(task, narrow, training, report, Effort(), index=index)


def _as_dense(task: Task) -> int:
    """Return the epochs that went into the dense network."""
    if not (epochs := math.ceil(task.dense_effort.epochs)):
        raise ConfigError(
            "`training.epochs > 0` must hold where the dense network's weights are published ones, "
            "of which the effort is not known, but got 0."
        )
    return epochs

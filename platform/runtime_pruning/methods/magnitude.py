"""Static pruning by the norm of the weights: the baseline that every other method must beat.

Sources: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (L1 norm, fine-tuning);
Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (norm over all tied layers).
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from runtime_pruning.config import Count, SomeShare, config_class
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.methods.base import Method, Report, Task, register
from runtime_pruning.methods.surgical import (
    Targets,
    as_targets,
    dense_backbone,
    finetune_and_report,
)
from runtime_pruning.methods.widths import best_channels, ranked, uniform, widest_within
from runtime_pruning.network.finetuning import FinetuneConfig
from runtime_pruning.network.surgery import channel_scores, pruned


@config_class
class MagnitudeConfig:
    """Settings of the method.

    Attributes:
        macs: share of the dense network's MACs that the pruned one may cost, or several shares, one
            operating point each; it comes as near as widths allow.
        norm: of the weights that go with a channel, all tied layers together.
        widths: the same share of channels in each group, or the highest norms of all groups.
        multiple: widths are multiples of this, since odd ones can be slower.
        least: share of a group's channels that stays at least, where widths are ranked.
        finetune: what fine-tuning may cost, taught by the dense network.
    """

    macs: Targets = 0.5
    norm: Literal["l1", "l2"] = "l2"
    widths: Literal["uniform", "ranked"] = "uniform"
    multiple: Count = 4
    least: SomeShare = 0.25
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)


@register("magnitude")
class Magnitude(Method[MagnitudeConfig]):
    """An operating point per target: the channels of the largest norms, fine-tuned."""

    config_type = MagnitudeConfig

    def budgets(self, config: MagnitudeConfig) -> Mapping[str, float]:
        """Return the largest target."""
        return {"macs": max(as_targets(config.macs))}

    def fit(self, task: Task, config: MagnitudeConfig, report: Report) -> None:
        """Prune, fine-tune and report, one target after the other, from the dense network."""
        dense, shape = dense_backbone(task), task.dense.image_shape
        macs = PrunedMacs(dense, shape)
        scores = channel_scores(dense, shape, norm=1 if config.norm == "l1" else 2)
        family = uniform(macs.groups, config.multiple)
        if config.widths == "ranked":
            family = ranked(macs.groups, scores, config.multiple, config.least)
        targets = as_targets(config.macs)
        widths = [widest_within(macs, target * macs.dense, family) for target in targets]
        for index in range(task.points_done, len(targets)):
            keep = {
                group.name: best_channels(scores[group.name], width)
                for group, width in zip(macs.groups, widths[index], strict=True)
            }
            backbone = pruned(dense, shape, keep).backbone
            finetune_and_report(
                task, backbone, config.finetune, report, task.dense_effort, index=index
            )

"""A second look by a threshold: the simplest policy that looks, and what a learned one is to beat.

Every image runs at the narrowest width; where the greatest class probability stays below a
threshold, the image runs again at a wider one. Thresholds are those that give a second look to a
wanted share of the policy split. Source: cascades of classifiers by confidence, as in Wang et al.,
"Wisdom of Committees: An Overlooked Approach To Faster and More Accurate Models", ICLR 2022, here
with the widths of one network as the classifiers.

Dimensions: N images of a split.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from runtime_pruning.config import config_class
from runtime_pruning.datasets import Split
from runtime_pruning.methods.base import CalibratedConfig, Method, Report, Task, register
from runtime_pruning.methods.evaluation import batches
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import FixedPolicy, SecondLookPolicy
from runtime_pruning.network.staged_run import certainty
from runtime_pruning.network.training import recalibrate_batch_norm

BATCH = 256


@config_class
class SecondLookConfig(CalibratedConfig):
    """Settings of the method.

    Attributes:
        shares: of the policy split's images that look twice; one point per share and width.
    """

    shares: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (
        0.15,
        0.4,
    )


@register("second-look")
class SecondLook(Method[SecondLookConfig]):
    """One point per width of the second pass and share of the images that take it."""

    config_type = SecondLookConfig

    def fit(self, task: Task, config: SecondLookConfig, report: Report) -> None:
        """Report the points, the narrowest second pass first."""
        network = task.network.with_second_look()
        policies = self._policies(task, network, config)
        for policy in islice(policies, task.points_done, None):
            recalibrate_batch_norm(network, task.data.training, policy, config.calibration_batches)
            report(policy, network, task.network_effort)

    def _policies(
        self, task: Task, network: PrunableNetwork, config: SecondLookConfig
    ) -> Iterator[SecondLookPolicy]:
        """Yield the policies; thresholds are read off the policy split."""
        top_N = _confidences(network.plain, task.data.policy)
        for groups in range(2, network.groups + 1):
            for share in sorted(config.shares):
                threshold = float(np.quantile(top_N, share))
                yield SecondLookPolicy(groups, len(network.plain.sites), threshold)


@torch.inference_mode()
def _confidences(network: PrunableNetwork, split: Split) -> NDArray[Any]:
    """Return the greatest class probability of each image at one group."""
    network.eval()
    policy = FixedPolicy(network.uniform(1))
    device = next(network.parameters()).device
    parts = (
        certainty(network.execute(images_BCHW, policy).logits_BK)[:, 0].cpu().numpy()
        for images_BCHW, _ in batches(split, BATCH, device)
    )
    return np.concatenate(list(parts))

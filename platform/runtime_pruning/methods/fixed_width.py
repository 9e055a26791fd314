"""The honest static control: every image gets the same widths, on the same weights.

A dynamic policy earns its name only by lying above this line at equal executed MACs.
"""

from dataclasses import dataclass

from pydantic import ConfigDict

from runtime_pruning.methods.base import Effort, Method, Report, Task, register
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import recalibrate_batch_norm


@dataclass(frozen=True, kw_only=True)
class FixedWidthConfig:
    """Settings of the control.

    Attributes:
        calibration_batches: batches of 256 training images over which batch-norm statistics are
            taken anew for each width; 0 leaves those of the prepared network.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    calibration_batches: int = 8

    def __post_init__(self) -> None:
        if self.calibration_batches < 0:
            raise ValueError(
                f"`calibration_batches >= 0` must hold, but got {self.calibration_batches}."
            )


@register("fixed-width")
class FixedWidth(Method[FixedWidthConfig]):
    """One operating point per group count in use: all sites run g of k groups, g = 1..k."""

    config_type = FixedWidthConfig

    def fit(self, task: Task, config: FixedWidthConfig, report: Report) -> None:
        """Report the uniform widths, narrowest first."""
        for groups in range(1 + task.points_done, task.network.groups + 1):
            policy = FixedPolicy(task.network.uniform(groups))
            if config.calibration_batches:
                recalibrate_batch_norm(
                    task.network, task.data.training, policy, config.calibration_batches
                )
            report(policy, task.network, Effort())

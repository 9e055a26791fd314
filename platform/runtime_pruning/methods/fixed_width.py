"""The honest static control: every image gets the same widths, on the same weights.

A dynamic policy earns its name only by lying above this line at equal executed MACs.
"""

from runtime_pruning.methods.base import CalibratedConfig, Method, Report, Task, register
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import recalibrate_batch_norm


@register("fixed-width")
class FixedWidth(Method[CalibratedConfig]):
    """One operating point per group count in use: all sites run g of k groups, g = 1..k."""

    config_type = CalibratedConfig

    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        """Report the uniform widths, narrowest first."""
        for groups in range(1 + task.points_done, task.network.groups + 1):
            policy = FixedPolicy(task.network.uniform(groups))
            recalibrate_batch_norm(
                task.network, task.data.training, policy, config.calibration_batches
            )
            report(policy, task.network, task.network_effort)

"""A third party's method: the whole plugin is this class and one line in pyproject.toml."""

from collections.abc import Mapping

from runtime_pruning.config import SomeShare, config_class
from runtime_pruning.cost.macs import dense_macs, plan_macs
from runtime_pruning.methods import Method, Report, Task
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import recalibrate_batch_norm


@config_class
class WidestConfig:
    """Settings of the method.

    Attributes:
        macs: shares of the dense network's MACs, one operating point each.
    """

    macs: tuple[SomeShare, ...] = (0.4, 0.8)


class Widest(Method[WidestConfig]):
    """The widest uniform plan within each share of the MACs."""

    config_type = WidestConfig

    def budgets(self, config: WidestConfig) -> Mapping[str, float]:
        """Return the largest share."""
        return {"macs": max(config.macs)}

    def fit(self, task: Task, config: WidestConfig, report: Report) -> None:
        """Report a point per share, those that an interrupted run has left."""
        network = task.network
        for share in config.macs[task.points_done :]:
            plans = [FixedPolicy(network.uniform(g)) for g in range(network.groups, 0, -1)]
            costs = [
                int(plan_macs(network, network.channels(plan.groups_L[None]))[0]) for plan in plans
            ]
            fitting = [
                plan
                for plan, cost in zip(plans, costs, strict=True)
                if cost <= share * dense_macs(network)
            ]
            if not fitting:
                report.infeasible(f"No width costs {share:.0%} of the MACs or less.")
                continue
            recalibrate_batch_norm(network, task.data.training, fitting[0], 1)
            report(fitting[0], network, task.network_effort)

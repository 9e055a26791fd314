"""The dense network itself: the point that every accuracy loss and MAC fraction refers to."""

from dataclasses import dataclass

from pydantic import ConfigDict

from runtime_pruning.methods.base import Method, Report, Task, register
from runtime_pruning.network.policies import FixedPolicy


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """The control has no settings."""

    __pydantic_config__ = ConfigDict(extra="forbid")


@register("dense")
class Dense(Method[DenseConfig]):
    """One operating point: all channels, on the weights from before any-width training."""

    config_type = DenseConfig

    def fit(self, task: Task, config: DenseConfig, report: Report) -> None:
        """Report the dense network, unless an interrupted run has done so."""
        if task.points_done == 0:
            every = FixedPolicy(task.dense.uniform(task.dense.groups))
            report(every, task.dense, task.dense_effort)

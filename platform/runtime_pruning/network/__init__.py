"""A backbone made prunable in plain PyTorch: traced, grouped, run at any width, trained for it."""

from runtime_pruning.network.channel_order import channel_importance, order_channels
from runtime_pruning.network.execution import Answered, Execution
from runtime_pruning.network.graph import Site, Unit
from runtime_pruning.network.groups import group_bounds
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.staged_run import Mode, StagedRun
from runtime_pruning.network.tracing import trace

__all__ = [
    "Answered",
    "Execution",
    "Mode",
    "PrunableNetwork",
    "Site",
    "StagedRun",
    "Unit",
    "channel_importance",
    "group_bounds",
    "order_channels",
    "trace",
]

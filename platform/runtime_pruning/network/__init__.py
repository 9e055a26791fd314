"""A backbone made prunable: traced, grouped, run at any width, trained for it."""

from runtime_pruning.network.deployed import (
    DEPLOYED_MODES,
    DeployedMode,
    DeployedNetwork,
    deploy,
)
from runtime_pruning.network.execution import Execution, Mode, StagedRun
from runtime_pruning.network.graph import Site, Unit
from runtime_pruning.network.grouping import channel_importance, group_bounds, order_channels
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.tracing import trace

__all__ = [
    "DEPLOYED_MODES",
    "DeployedMode",
    "DeployedNetwork",
    "Execution",
    "Mode",
    "PrunableNetwork",
    "Site",
    "StagedRun",
    "Unit",
    "channel_importance",
    "deploy",
    "group_bounds",
    "order_channels",
    "trace",
]

"""The registry of costs: what the agent pays for a decision, by name.

A plugin is one function from a network to a `pruning_envs.StepCost`.
"""

from collections.abc import Callable

from pruning_envs import GroupCost, StepCost
from runtime_pruning.cost.latency_cost import LatencyStepCost, find_table
from runtime_pruning.cost.macs import MacStepCost
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.registry import Registry

CostFactory = Callable[[PrunableNetwork], StepCost]

_COSTS: Registry[CostFactory] = Registry("cost", "runtime_pruning.costs")

register = _COSTS.register
get = _COSTS.get


def names() -> list[str]:
    """Return the names of all known costs."""
    return sorted(_COSTS)


@register("macs")
def macs(network: PrunableNetwork) -> StepCost:
    """Return the cost in MACs, as a fraction of the dense network's."""
    return MacStepCost(network)


@register("groups")
def groups(network: PrunableNetwork) -> StepCost:
    """Return the paper's cost: groups beyond the first, alike at all sites."""
    return GroupCost()


@register("latency")
def latency(network: PrunableNetwork) -> StepCost:
    """Return the cost in milliseconds on this device, as a fraction of the dense network's.

    The table is looked up in the folder that ``RUNTIME_PRUNING_CALIBRATION`` names; where it has
    none for this device and network, a quick calibration makes one.
    """
    return LatencyStepCost(find_table(network), network)

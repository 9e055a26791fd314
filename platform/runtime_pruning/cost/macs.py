"""Multiply-accumulates of plans, computed and not counted: the analytic cost.

Convolutions and linear layers count; normalisation, activations, pooling and adds do not, as is
usual. One multiply-add is one MAC. Execution counts the same where it calls its layers, so that
the two can be held against each other.

Dimensions: B images, L sites.
"""

import torch
from torch import Tensor

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.policies import Policy
from runtime_pruning.network.prunable import PrunableNetwork
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import subset_macs


def dense_macs(network: PrunableNetwork) -> int:
    """Return the MACs of the plain backbone on one image."""
    full_1L = network.channels(torch.tensor([network.uniform(network.groups)]))
    return int(plan_macs(network, full_1L)[0])


def plan_macs(network: PrunableNetwork, channels_BL: Tensor) -> Tensor:
    """Return ``macs_B``, int64: MACs of the backbone under plans.

    Args:
        network: the backbone made prunable.
        channels_BL: channels that run at each site, int64.

    Raises:
        ConfigError: not one column per site.
    """
    if channels_BL.ndim != 2 or channels_BL.shape[1] != len(network.sites):
        raise ConfigError(
            f"`channels_BL` needs {len(network.sites)} columns, one per site, "
            f"but got shape {tuple(channels_BL.shape)}."
        )
    channels_BL = channels_BL.to(torch.int64)
    macs_B = torch.zeros(channels_BL.shape[0], dtype=torch.int64, device=channels_BL.device)
    for unit in network.priced_units:
        macs_B += unit.macs(channels_BL)
    return macs_B


def policy_macs(network: PrunableNetwork, policy: Policy, channels_BL: Tensor) -> Tensor:
    """Return ``macs_B``, int64: MACs of what a policy ran, its own included.

    Args:
        network: the backbone made prunable.
        policy: of plans, or of subsets of channels.
        channels_BL: channels that ran at each site, int64.
    """
    priced = subset_macs if isinstance(policy, SubsetPolicy) else plan_macs
    return priced(network, channels_BL) + policy.macs_per_image


def channels_so_far(bounds_GL: Tensor, site: int, groups_BL: Tensor) -> Tensor:
    """Return ``channels_BL``, int64, of a plan up to a site.

    Args:
        bounds_GL: channels that each site runs with 0, 1, ... G groups.
        site: that was decided last.
        groups_BL: the plan up to it, ``site + 1`` columns.

    Raises:
        ConfigError: another number of columns.
    """
    if groups_BL.shape[1] != site + 1:
        raise ConfigError(
            f"The plan up to site {site} has {site + 1} columns, but got {groups_BL.shape[1]}."
        )
    return bounds_GL[:, : site + 1].gather(0, groups_BL.cpu())


class MacStepCost:
    """What a decision spends: MACs from its site to the next, as a fraction of the dense network.

    The costs of all decisions and `before` add up to the plan's MACs over the dense ones. Holds
    no weights: it travels in the configuration of every env runner.

    Attributes:
        before: fraction that is spent before the first decision, whatever is chosen.
    """

    def __init__(self, network: PrunableNetwork) -> None:
        self._bounds_GL = torch.tensor([site.bounds for site in network.sites]).T.contiguous()
        self._dense = dense_macs(network)
        first, *self._stages = network.graph.stages
        none_10 = torch.empty(1, 0, dtype=torch.int64)
        self.before = sum(int(unit.macs(none_10)[0]) for unit in first) / self._dense

    def __call__(self, site: int, groups_BL: Tensor) -> Tensor:
        """Return ``cost_B``, float64, of the decision at a site.

        Args:
            site: that was decided last.
            groups_BL: the plan up to it, ``site + 1`` columns.

        Raises:
            ConfigError: another number of columns.
        """
        channels_BL = channels_so_far(self._bounds_GL, site, groups_BL)
        macs_B = torch.zeros(channels_BL.shape[0], dtype=torch.int64)
        for unit in self._stages[site]:
            macs_B += unit.macs(channels_BL)
        return macs_B.double() / self._dense

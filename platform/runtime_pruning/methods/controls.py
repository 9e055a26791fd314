"""Plans that a policy is held against: its own, permuted between images.

Dimensions: N images, L sites.
"""

import numpy as np
import numpy.typing as npt
import torch

from runtime_pruning.cost.macs import plan_macs
from runtime_pruning.errors import DataError
from runtime_pruning.network import PrunableNetwork

Groups = npt.NDArray[np.int64]

# Plans that share a mean share it up to this part of it.
_TOLERANCE = 1e-3


def groups_of(network: PrunableNetwork, channels_NL: npt.ArrayLike) -> Groups:
    """Return ``groups_NL``: how many groups ran, from how many channels ran.

    Raises:
        DataError: another number of sites, or channels that no group count of a site runs.
    """
    channels = np.asarray(channels_NL, dtype=np.int64)
    if channels.ndim != 2 or channels.shape[1] != len(network.sites):
        raise DataError(
            f"Channels of {len(network.sites)} sites are needed, but got shape {channels.shape}."
        )
    groups_NL = np.empty_like(channels)
    for site in network.sites:
        column_N = channels[:, site.index]
        groups_NL[:, site.index] = np.searchsorted(site.bounds, column_N)
        unknown = np.setdiff1d(column_N, site.bounds)
        if len(unknown):
            raise DataError(
                f"Site {site.name!r} runs {site.bounds} channels, but got {unknown.tolist()}."
            )
    return groups_NL


def shuffled(groups_NL: Groups, *, seed: int) -> Groups:
    """Return the same plans in an order that has nothing to do with the images."""
    return np.random.default_rng(seed).permutation(groups_NL, axis=0)


def scattered(network: PrunableNetwork, groups_NL: Groups, *, seed: int) -> Groups:
    """Return random plans with the same histogram at every site and the same mean MACs.

    Each site's groups are shuffled on their own. That moves the mean cost, since what two
    neighbouring sites cost is a product of their widths: so pairs of images swap their groups at
    a site until the mean is back within a thousandth, or as near as some hundred rounds of swaps
    bring it. No histogram changes by a swap.
    """
    rng = np.random.default_rng(seed)
    plans_NL = np.stack([rng.permutation(column) for column in groups_NL.T], axis=1)
    wanted = int(_macs(network, groups_NL).sum())
    for _ in range(100 * groups_NL.shape[1]):
        gap = wanted - int(_macs(network, plans_NL).sum())
        if abs(gap) <= _TOLERANCE * wanted:
            break
        plans_NL = _swapped(network, plans_NL, gap, rng)
    return plans_NL


def _swapped(
    network: PrunableNetwork, plans_NL: Groups, gap: int, rng: np.random.Generator
) -> Groups:
    """Return plans in which some pairs have swapped one site's groups, to close the gap in MACs."""
    one_P, other_P = np.split(rng.permutation(len(plans_NL))[: len(plans_NL) // 2 * 2], 2)
    site = rng.integers(plans_NL.shape[1])
    swapped_NL = plans_NL.copy()
    swapped_NL[one_P, site], swapped_NL[other_P, site] = (
        plans_NL[other_P, site],
        plans_NL[one_P, site],
    )
    change_N = _macs(network, swapped_NL) - _macs(network, plans_NL)
    change_P = (change_N[one_P] + change_N[other_P]) * np.sign(gap)
    useful_P = np.flatnonzero((change_P > 0) & (change_P <= abs(gap)))
    # As many as fit into the gap.
    useful_P = useful_P[np.cumsum(change_P[useful_P]) <= abs(gap)]
    rows = np.concatenate([one_P[useful_P], other_P[useful_P]])
    result_NL = plans_NL.copy()
    result_NL[rows] = swapped_NL[rows]
    return result_NL


def _macs(network: PrunableNetwork, groups_NL: Groups) -> npt.NDArray[np.int64]:
    """Return ``macs_N`` of the backbone under plans."""
    macs_N = plan_macs(network, network.channels(torch.from_numpy(groups_NL)))
    return np.asarray(macs_N.cpu().numpy(), dtype=np.int64)

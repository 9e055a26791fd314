"""Milliseconds as the penalty: an agent learns what is slow on this device.

Dimensions: B images, L sites, G groups.
"""

import os
from pathlib import Path

import torch
from torch import Tensor

from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency import LatencyTable
from runtime_pruning.cost.macs import channels_so_far
from runtime_pruning.cost.timed_stages import timed_deployed
from runtime_pruning.cost.timed_units import TimedNetwork, network_key
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork

CALIBRATION_ENV = "RUNTIME_PRUNING_CALIBRATION"


class LatencyStepCost:
    """What a decision spends: time from its site to the next, as a fraction of the dense network's.

    The costs of all decisions and `before` add up to the plan's price over the dense one. Holds
    the table's grids and no weights: it travels in the configuration of every env runner.

    Args:
        table: of the network on the device whose time counts.
        network: whose plans are priced.
        batch: the size of batch whose times count, one that the table holds.

    Raises:
        ConfigError: the table is of another network.

    Attributes:
        before: fraction that is spent before the first decision, whatever is chosen.
        dense_ms: of one call on the batch, all groups.
    """

    def __init__(self, table: LatencyTable, network: PrunableNetwork, *, batch: int = 1) -> None:
        if table.network_key != network_key(network):
            raise ConfigError(
                f"The latency table is of another network ({table.backbone!r}, key "
                f"{table.network_key}, not {network_key(network)}): calibrate this one."
            )
        self._bounds_GL = torch.tensor([site.bounds for site in network.sites]).T.contiguous()
        stages = range(1, len(network.sites) + 1)
        units = table.units(batch)
        self._stages = tuple(tuple(u for u in units if u.stage == stage) for stage in stages)
        full_1L = network.channels(torch.tensor([network.uniform(network.groups)]))
        self.dense_ms = float(table.price(full_1L, batch=batch)[0]) * batch
        none_10 = torch.empty(1, 0, dtype=torch.int64).numpy()
        first_ms = sum(float(unit(none_10)[0]) for unit in units if unit.stage == 0)
        self.before = (table.fixed_ms(batch) + first_ms) / self.dense_ms

    def __call__(self, site: int, groups_BL: Tensor) -> Tensor:
        """Return ``cost_B``, float64, of the decision at a site.

        Args:
            site: that was decided last.
            groups_BL: the plan up to it, ``site + 1`` columns.

        Raises:
            ConfigError: another number of columns.
        """
        channels = channels_so_far(self._bounds_GL, site, groups_BL).numpy()
        cost_B = torch.zeros(len(channels), dtype=torch.float64)
        for unit in self._stages[site]:
            cost_B += torch.from_numpy(unit(channels))
        return cost_B / self.dense_ms


def table_path(folder: Path, timed: TimedNetwork) -> Path:
    """Return where the table of this device and network lies in a folder of tables."""
    return folder / timed.device.key / f"{network_key(timed.network)}.parquet"


def find_table(network: PrunableNetwork, folder: Path | None = None) -> LatencyTable:
    """Return the table of this device and network, from the folder or by a quick calibration.

    Times are those of the network as it is deployed: fused, on the CPU or GPU where it is now.

    Args:
        network: to be deployed.
        folder: of tables; by default the environment variable ``RUNTIME_PRUNING_CALIBRATION``
            names it. A table that is made here is kept there, if there is such a folder.
    """
    if folder is None and (named := os.environ.get(CALIBRATION_ENV)):
        folder = Path(named)
    like = next(network.parameters())
    timed = timed_deployed(network, dtype=like.dtype, device=like.device)
    path = None if folder is None else table_path(folder, timed)
    if path is not None and path.is_file():
        return LatencyTable.read(path)
    name = type(network.backbone).__name__
    table = calibrate(timed, backbone=name, passes=2, rounds=2)
    if path is not None:
        table.write(path)
    return table

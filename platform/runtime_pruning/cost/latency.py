"""A device's latency table: milliseconds of each unit at the widths that it may run at.

Kept as Parquet, keyed by device; it prices plans without the network: a plan costs what its units
cost, and what an execution costs beside its units. Widths between two measured ones are
interpolated; beyond the measured ones the nearest counts.

Dimensions: B images (plans), L sites, I and O measured widths.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.files import replacing

SCHEMA_VERSION = 1
FIXED = "(fixed)"  # stands for what an execution costs beside its units

_FIELDS = {
    "unit": pa.string(),
    "kind": pa.string(),
    "stage": pa.int16(),
    "input_sites": pa.list_(pa.int16()),
    "output_sites": pa.list_(pa.int16()),
    "input_width": pa.int32(),
    "output_width": pa.int32(),
    "batch": pa.int32(),
    "dtype": pa.string(),
    "threads": pa.int16(),
    "samples": pa.int32(),
    "latency_ms": pa.float64(),
}
SCHEMA = pa.schema(list(_FIELDS.items()))


class Row(NamedTuple):
    """One entry of a table.

    Attributes:
        unit: name of the value that the unit writes, or `FIXED`.
        kind: of the unit.
        stage: decisions that are taken before it runs.
        input_sites: sites whose largest width is `input_width`; none: it is always the same.
        output_sites: likewise for `output_width`.
        input_width: channels that the unit reads.
        output_width: channels that it writes; of an add, channels of the second part.
        batch: images per call.
        dtype: of weights and images.
        threads: of one operation.
        samples: timings behind the number.
        latency_ms: of one call on the whole batch.
    """

    unit: str
    kind: str
    stage: int
    input_sites: tuple[int, ...]
    output_sites: tuple[int, ...]
    input_width: int
    output_width: int
    batch: int
    dtype: str
    threads: int
    samples: int
    latency_ms: float


@dataclass(frozen=True, eq=False)
class UnitLatency:
    """One unit's milliseconds over a grid of widths; without weights, so it travels.

    Attributes:
        stage: decisions that are taken before it runs.
        input_sites: see `Row`.
        output_sites: see `Row`.
        input_widths_I: measured, ascending.
        output_widths_O: measured, ascending; one only where it follows from the input's.
        latency_ms_IO: of one call on a batch.
    """

    stage: int
    input_sites: tuple[int, ...]
    output_sites: tuple[int, ...]
    input_widths_I: NDArray[np.float64]
    output_widths_O: NDArray[np.float64]
    latency_ms_IO: NDArray[np.float64]

    def __call__(self, channels_BL: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ``latency_ms_B`` under plans, of which the columns up to its stage are needed."""
        low_B, share_B = _between(self.input_widths_I, channels_BL, self.input_sites)
        left_B, part_B = _between(self.output_widths_O, channels_BL, self.output_sites)
        high_B = np.minimum(low_B + 1, len(self.input_widths_I) - 1)
        right_B = np.minimum(left_B + 1, len(self.output_widths_O) - 1)
        grid = self.latency_ms_IO
        narrow_B = grid[low_B, left_B] * (1 - part_B) + grid[low_B, right_B] * part_B
        wide_B = grid[high_B, left_B] * (1 - part_B) + grid[high_B, right_B] * part_B
        return np.asarray(narrow_B * (1 - share_B) + wide_B * share_B)


class _Place(NamedTuple):
    """Where widths lie in a grid: the index below, and how far on towards the next, in [0, 1]."""

    index_B: NDArray[np.int64]
    share_B: NDArray[np.float64]


def _between(
    widths: NDArray[np.float64], channels_BL: NDArray[np.int64], sites: tuple[int, ...]
) -> _Place:
    """Return the place of the largest of the sites' widths."""
    if len(widths) == 1 or not sites:
        zeros_B = np.zeros(len(channels_BL), dtype=np.int64)
        return _Place(zeros_B, zeros_B.astype(np.float64))
    width_B = channels_BL[:, list(sites)].max(1)
    index_B = np.clip(np.searchsorted(widths, width_B, side="right") - 1, 0, len(widths) - 2)
    share_B = (width_B - widths[index_B]) / (widths[index_B + 1] - widths[index_B])
    return _Place(index_B, np.clip(share_B, 0, 1))


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured milliseconds of a network's units on one device.

    Attributes:
        rows: one per unit, pair of widths and batch.
        device_key: see `runtime_pruning.timing.device.Device.key`.
        network_key: tells networks apart by structure; see `calibration.network_key`.
        backbone: its name, for people.
        num_sites: columns of a plan.
        fingerprint: of the host.
        notes: what was seen while measuring.
    """

    rows: tuple[Row, ...]
    device_key: str
    network_key: str
    backbone: str
    num_sites: int
    fingerprint: Mapping[str, str]
    notes: Mapping[str, float]

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes that were measured, ascending."""
        return tuple(sorted({row.batch for row in self.rows}))

    def units(self, batch: int = 1) -> tuple[UnitLatency, ...]:
        """Return what each unit costs in a batch.

        Raises:
            ConfigError: the batch size was not measured.
        """
        if batch not in self.batches:
            raise ConfigError(
                f"The table holds no batch of {batch}; it holds {list(self.batches)}."
            )
        by_unit: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.batch == batch and row.unit != FIXED:
                by_unit.setdefault(row.unit, []).append(row)
        return tuple(_unit(rows) for rows in by_unit.values())

    def fixed_ms(self, batch: int = 1) -> float:
        """Return what an execution of a batch costs beside its units; it may save, below zero."""
        fixed = [r.latency_ms for r in self.rows if r.unit == FIXED and r.batch == batch]
        return float(sum(fixed))

    def price(self, channels_BL: Tensor, *, batch: int = 1) -> Tensor:
        """Return ``latency_ms_B``, float64, per image.

        Args:
            channels_BL: plans: channels that run at each site, int64.
            batch: of images that all run the plan; its time is shared among them.

        Raises:
            ConfigError: not one column per site, or a batch size that was not measured.
        """
        if channels_BL.ndim != 2 or channels_BL.shape[1] != self.num_sites:
            raise ConfigError(
                f"`channels_BL` needs {self.num_sites} columns, one per site, "
                f"but got shape {tuple(channels_BL.shape)}."
            )
        channels = channels_BL.cpu().numpy()
        total_B = np.full(len(channels), self.fixed_ms(batch))
        for unit in self.units(batch):
            total_B += unit(channels)
        return torch.from_numpy(total_B / batch)

    def write(self, path: Path) -> None:
        """Write Parquet in one go: a reader finds the old file or the new one."""
        columns = [list(column) for column in zip(*self.rows, strict=True)]
        table = pa.table(columns, schema=SCHEMA.with_metadata(self._metadata()))
        with replacing(path) as unfinished:
            pq.write_table(table, unfinished)

    def _metadata(self) -> dict[str, str]:
        return {
            "schema_version": str(SCHEMA_VERSION),
            "device_key": self.device_key,
            "network_key": self.network_key,
            "backbone": self.backbone,
            "num_sites": str(self.num_sites),
            "fingerprint": json.dumps(dict(self.fingerprint)),
            "notes": json.dumps(dict(self.notes)),
        }

    @staticmethod
    def read(path: Path) -> "LatencyTable":
        """Read a table.

        Raises:
            DataError: no such file, or one of another form.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"No latency table can be read from {str(path)!r}: {error}") from error
        facts = {
            key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
        }
        version = facts.get("schema_version")
        if version != str(SCHEMA_VERSION) or not table.schema.equals(SCHEMA):
            raise DataError(
                f"{str(path)!r} is no latency table of schema {SCHEMA_VERSION}, but {version}: "
                "calibrate anew."
            )
        return LatencyTable(
            rows=tuple(_row(entry) for entry in table.to_pylist()),
            device_key=facts["device_key"],
            network_key=facts["network_key"],
            backbone=facts["backbone"],
            num_sites=int(facts["num_sites"]),
            fingerprint=json.loads(facts["fingerprint"]),
            notes=json.loads(facts["notes"]),
        )


def _row(entry: dict[str, Any]) -> Row:
    """Return a row from a record of Arrow."""
    sites = {name: tuple(entry[name]) for name in ("input_sites", "output_sites")}
    return Row(**{**entry, **sites})


def _unit(rows: Sequence[Row]) -> UnitLatency:
    """Return the grid of one unit; a pair of widths that was not measured takes the nearest."""
    first = rows[0]
    tied = first.input_sites == first.output_sites and bool(first.input_sites)
    seen = {(r.input_width, 0 if tied else r.output_width): r.latency_ms for r in rows}
    inputs, outputs = (sorted({pair[axis] for pair in seen}) for axis in (0, 1))
    grid = np.array([[_nearest(seen, (one, two)) for two in outputs] for one in inputs])
    return UnitLatency(
        stage=first.stage,
        input_sites=first.input_sites,
        output_sites=first.output_sites,
        input_widths_I=np.array(inputs, dtype=np.float64),
        output_widths_O=np.array(outputs, dtype=np.float64),
        latency_ms_IO=grid,
    )


def _nearest(seen: Mapping[tuple[int, int], float], pair: tuple[int, int]) -> float:
    """Return the latency of a pair of widths, or of the nearest that was measured."""
    return seen[min(seen, key=lambda other: abs(other[0] - pair[0]) + abs(other[1] - pair[1]))]

"""A finished frontier on another device: its points' plans priced by that device's latency table.

Nothing runs: a record says how many channels ran for each image, and the table what they cost.
Predicted milliseconds are of the network's plans; the decision networks' own time is in no table,
so a close call between fixed and decided points is settled by a clock: `runtime-pruning measure`.

Dimensions: N images, L sites.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from runtime_pruning.cost.latency import LatencyTable
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.board import Board
from runtime_pruning.frontier.dominance import Doubles, losses_of, pareto_mask
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import Record
from runtime_pruning.frontier.showing import Thumbnails
from runtime_pruning.tracking.boards import read_board
from runtime_pruning.tracking.rebuild import rebuild


class Priced(NamedTuple):
    """A point on both axes.

    Attributes:
        point: as it was measured.
        mean_ms, p50_ms, p95_ms: predicted, per call of the batch, over images.
        macs_rank, ms_rank: its place by cost among the priced points, the cheapest 1.
        on_macs_front, on_ms_front: whether no other priced point beats it there.
    """

    point: OperatingPoint
    mean_ms: float
    p50_ms: float
    p95_ms: float
    macs_rank: int
    ms_rank: int
    on_macs_front: bool
    on_ms_front: bool

    @property
    def changed(self) -> bool:
        """Whether the device ranks it otherwise than MACs do, or moves it on or off the front."""
        return self.macs_rank != self.ms_rank or self.on_macs_front != self.on_ms_front


@dataclass(frozen=True, kw_only=True)
class Repriced:
    """A frontier on another device.

    Attributes:
        device: key of the table's device.
        batch: images per call, all of one plan.
        points: those that could be priced, quickest first.
        unpriced: why others could not be, by id.
        board: draws all points, with the predicted milliseconds as an axis.
    """

    device: str
    batch: int
    points: tuple[Priced, ...]
    unpriced: dict[str, str]
    board: Board

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [
            {"point_id": each.point.point_id, **each._asdict(), "changed": each.changed}
            for each in self.points
        ]
        for row in rows:
            row.pop("point")
        facts = {"device": self.device, "batch": self.batch, "unpriced": self.unpriced}
        return {**facts, "points": rows}


def reprice(
    uri: str,
    sweep_id: str,
    table: LatencyTable,
    *,
    batch: int = 1,
    pictures: Thumbnails | None = None,
) -> Repriced:
    """Return a sweep's frontier in the milliseconds that a table predicts.

    Args:
        uri: the store.
        sweep_id: which sweep.
        table: of the backbone, on the other device.
        batch: images per call, one that the table holds.
        pictures: of the images that the points were measured on.

    Raises:
        ConfigError: a batch that the table does not hold.
        DataError: no such sweep, or no point that the table can price.
    """
    table.units(batch)  # refuses a batch that is not there before anything is read
    stored, board = rebuild(uri, sweep_id), read_board(uri, [sweep_id], pictures=pictures)
    unpriced = {
        each.point.point_id: reason
        for each in stored
        if (reason := _refusal(each.point, each.record, table)) is not None
    }
    taken = [each for each in stored if each.point.point_id not in unpriced]
    if not taken:
        raise DataError(
            f"The table of {table.backbone!r} ({table.num_sites} sites) prices no point of "
            f"{sweep_id!r}: {'; '.join(sorted(set(unpriced.values()))) or 'it has none'}."
        )
    prices = [_price(each.record, table, batch) for each in taken]
    for each, price_N in zip(taken, prices, strict=True):
        predicted = {f"predicted:{table.device_key}.{batch}.{k}": v for k, v in price_N.items()}
        board.add_prediction(each.point.point_id, predicted)
    return Repriced(
        device=table.device_key,
        batch=batch,
        points=_ranked([each.point for each in taken], prices),
        unpriced=unpriced,
        board=board,
    )


def _refusal(point: OperatingPoint, record: Record, table: LatencyTable) -> str | None:
    """Return why a table cannot price a point; None if it can."""
    if point.backbone != table.backbone:
        return f"its network is {point.backbone!r}, the table's {table.backbone!r}"
    if record.num_sites != table.num_sites:
        return f"its record has {record.num_sites} sites, the table {table.num_sites}"
    return None


def _price(record: Record, table: LatencyTable, batch: int) -> dict[str, float]:
    """Return predicted milliseconds of a call, over images: mean and quantiles."""
    channels_NL = torch.from_numpy(record.channels_NL.astype(np.int64))
    price_N = table.price(channels_NL, batch=batch).numpy() * batch
    p50, p95 = np.quantile(price_N, (0.5, 0.95), method="inverted_cdf").tolist()
    return {"mean": float(price_N.mean()), "p50": p50, "p95": p95}


def _ranked(
    points: Sequence[OperatingPoint], prices: Sequence[dict[str, float]]
) -> tuple[Priced, ...]:
    """Return points with their places by either cost, quickest first."""
    losses_P2 = losses_of(points)
    ms_P = np.array([price["mean"] for price in prices])
    on_macs_P = pareto_mask(losses_P2)
    on_ms_P = pareto_mask(np.stack([losses_P2[:, 0], ms_P], axis=1))
    macs_P, places_P = _places(losses_P2[:, 1]), _places(ms_P)
    rows = [
        Priced(
            point,
            prices[p]["mean"],
            prices[p]["p50"],
            prices[p]["p95"],
            int(macs_P[p]),
            int(places_P[p]),
            bool(on_macs_P[p]),
            bool(on_ms_P[p]),
        )
        for p, point in enumerate(points)
    ]
    return tuple(sorted(rows, key=lambda each: (each.ms_rank, each.point.point_id)))


def _places(costs_P: Doubles) -> list[int]:
    """Return each cost's place, the smallest 1; equal costs share the first of their places."""
    ascending = np.sort(costs_P)
    return [int(place) + 1 for place in np.searchsorted(ascending, costs_P, side="left")]


def told(repriced: Repriced) -> str:
    """Return the answer as a table for the terminal; an asterisk marks what has changed."""
    lines = [
        f"Predicted for {repriced.device}, batch {repriced.batch}; the decision networks' time is "
        "not in a table.",
        f"{'ms':>9}  {'place':>5}  {'by MACs':>7}  {'accuracy':>8}  {'of dense':>8}  front",
    ]
    front = {(True, True): "both", (True, False): "MACs only", (False, True): "ms only"}
    for each in repriced.points:
        on = front.get((each.on_macs_front, each.on_ms_front), "")
        lines.append(
            f"{each.mean_ms:9.3g}  {each.ms_rank:5d}  {each.macs_rank:7d}  "
            f"{each.point.accuracy:8.2%}  {each.point.macs_fraction:8.1%}  {on:9}  "
            f"{'*' if each.changed else ' '} {each.point.method} {each.point.point_id}"
        )
    changed = sum(each.changed for each in repriced.points)
    lines.append(f"{changed} of {len(repriced.points)} points changed their place (*).")
    lines += [f"not priced, {reason}: {id_}" for id_, reason in sorted(repriced.unpriced.items())]
    return "\n".join(lines)

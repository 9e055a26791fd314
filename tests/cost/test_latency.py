"""Latency tables: prices by hand, Parquet there and back, step costs that add up."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from two_sites import BY_HAND, NETWORK, table_of

from runtime_pruning.cost.latency import LatencyTable
from runtime_pruning.errors import ConfigError, DataError


def test_prices_by_hand() -> None:
    plans_BL = torch.tensor([[8, 8], [4, 8], [4, 4], [8, 4]])
    # 0.5 beside the units + 1 of the first, then conv1 + conv2 + linear.
    expected = [1.5 + 4 + 7 + 0.5, 1.5 + 2 + 2 + 0.5, 1.5 + 2 + 1 + 0.25, 1.5 + 4 + 3 + 0.25]
    assert BY_HAND.price(plans_BL).tolist() == expected


def test_widths_between_and_beyond_by_hand() -> None:
    plans_BL = torch.tensor([[6, 4], [6, 6], [2, 4]])
    # Half way: conv1 3; conv2 (1 + 3) / 2, and (1 + 2 + 3 + 7) / 4; beyond: as at 4.
    expected = [1.5 + 3 + 2 + 0.25, 1.5 + 3 + 13 / 4 + 0.375, 1.5 + 2 + 1 + 0.25]
    assert BY_HAND.price(plans_BL).tolist() == pytest.approx(expected)


def test_a_width_that_several_sites_decide_is_the_largest() -> None:
    entries = [("add", 2, (0, 1), (0, 1), (w, w), float(w)) for w in (4, 8)]
    table = table_of(NETWORK, entries)  # type: ignore[arg-type]
    assert table.price(torch.tensor([[4, 4], [4, 8], [8, 4], [8, 8]])).tolist() == [4, 8, 8, 8]


def test_a_pair_that_was_not_measured_takes_the_nearest() -> None:
    measured = {(4, 4): 1.0, (8, 6): 9.0}
    entries = [("conv2", 2, (0,), (1,), widths, ms) for widths, ms in measured.items()]
    table = table_of(NETWORK, entries)  # type: ignore[arg-type]
    assert table.price(torch.tensor([[8, 4], [4, 4]])).tolist() == [9, 1]


def test_a_batch_shares_its_time() -> None:
    rows = tuple(row._replace(batch=4) for row in BY_HAND.rows)
    both = replace(BY_HAND, rows=(*BY_HAND.rows, *rows))
    assert both.batches == (1, 4)
    assert both.price(torch.tensor([[8, 8]]), batch=4).tolist() == [13 / 4]
    with pytest.raises(ConfigError, match=r"no batch of 2; it holds \[1, 4\]"):
        both.price(torch.tensor([[8, 8]]), batch=2)


def test_a_plan_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs 2 columns, one per site, but got shape \(1, 3\)"):
        BY_HAND.price(torch.ones(1, 3, dtype=torch.int64))


def test_parquet_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.parquet"
    BY_HAND.write(path)
    again = LatencyTable.read(path)
    assert again.rows == BY_HAND.rows
    assert (again.device_key, again.network_key) == (BY_HAND.device_key, BY_HAND.network_key)
    assert again.fingerprint == {"cpu": "x"}
    assert list(path.parent.iterdir()) == [path]
    assert pq.read_table(path).schema.metadata[b"schema_version"] == b"1"


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No latency table can be read"):
        LatencyTable.read(tmp_path / "absent.parquet")
    path = tmp_path / "old.parquet"
    BY_HAND.write(path)
    table = pq.read_table(path)
    told = {**table.schema.metadata, b"schema_version": b"0"}
    pq.write_table(table.replace_schema_metadata(told), path)
    with pytest.raises(DataError, match="no latency table of schema 1, but 0: calibrate anew"):
        LatencyTable.read(path)

"""A frontier on another device, by hand: a table on which the first site is all that costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime_pruning.cli.app import main
from runtime_pruning.cost.latency import FIXED, LatencyTable, Row
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier import Provenance, Record, derive, write_record
from runtime_pruning.sweeping.repricing import reprice, told
from runtime_pruning.tracking.mlflow_store import FrontierTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def row(unit: str, width: int, ms: float) -> Row:
    return Row(unit, "convolution", 1, (), (0,), 3, width, 1, "float32", 1, 9, ms)


# 1 ms beside the units; the first site costs a millisecond for each 4 channels.
TABLE = LatencyTable(
    rows=(
        Row(FIXED, "fixed", 0, (), (), 0, 0, 1, "float32", 1, 9, 1.0),
        row("conv", 4, 1.0),
        row("conv", 8, 2.0),
    ),
    device_key="phone",
    network_key="abc",
    backbone="small",
    num_sites=2,
    fingerprint={},
    notes={},
)


def record(right: int, channels: list[tuple[int, int]], macs: list[int]) -> Record:
    """Four images, of which so many are classified rightly."""
    labels_N = np.arange(4) % 2
    predictions_N = np.where(np.arange(4) < right, labels_N, 1 - labels_N)
    return Record.from_arrays(
        split="validation",
        image_ids_N=np.arange(4),
        labels_N=labels_N,
        predictions_N=predictions_N,
        losses_N=np.zeros(4, np.float32),
        channels_NL=np.array(channels),
        executed_macs_N=np.array(macs),
    )


def provenance(name: str, backbone: str = "small") -> Provenance:
    return Provenance(
        sweep_id="s1", config={"name": name}, index=0, method=name, backbone=backbone, dataset="d",
        seed=0, groups=2, dense_macs=1000,
    )  # fmt: skip


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reprice")
    address = f"sqlite:///{folder / 'mlflow.db'}"
    tracker = FrontierTracker(address, "frontier", "s1", folder / "spool")
    tracker.start_sweep({})
    points = {
        "deep": (record(2, [(8, 1)] * 4, [300] * 4), "small"),  # few MACs, and slow here
        "wide": (record(3, [(4, 9), (4, 9), (4, 9), (8, 9)], [500] * 4), "small"),
        "other": (record(4, [(4, 9)] * 4, [700] * 4), "large"),
    }
    for name, (facts, backbone) in points.items():
        write_record(facts, folder / f"{name}.parquet")
        point = derive(facts, provenance(name, backbone))
        tracker.log_point(point, folder / f"{name}.parquet")
    assert tracker.finish() == 0
    return address


def test_by_hand(uri: str) -> None:
    repriced = reprice(uri, "s1", TABLE)
    wide, deep = repriced.points
    # Three images at 1 + 1 ms, one at 1 + 2 ms; the other point always at 1 + 2 ms.
    assert (wide.point.method, wide.mean_ms, wide.p50_ms, wide.p95_ms) == ("wide", 2.25, 2.0, 3.0)
    assert (deep.point.method, deep.mean_ms) == ("deep", 3.0)
    assert (wide.ms_rank, wide.macs_rank, deep.ms_rank, deep.macs_rank) == (1, 2, 2, 1)
    assert (wide.on_macs_front, wide.on_ms_front) == (True, True)
    assert (deep.on_macs_front, deep.on_ms_front) == (True, False)  # wide beats it here
    assert wide.changed
    (reason,) = repriced.unpriced.values()
    assert reason == "its network is 'large', the table's 'small'"
    text = told(repriced)
    assert "2 of 2 points changed their place (*)." in text
    assert "MACs only" in text


def test_what_a_table_cannot_price_is_said(uri: str) -> None:
    with pytest.raises(ConfigError, match="holds no batch of 64"):
        reprice(uri, "s1", TABLE, batch=64)
    other = replace(TABLE, num_sites=3)
    with pytest.raises(DataError, match="its record has 2 sites, the table 3"):
        reprice(uri, "s1", other)


def test_the_command_prints_and_draws(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    TABLE.write(tmp_path / "phone.parquet")
    command = ["reprice", "s1", "--table", str(tmp_path / "phone.parquet")]
    assert main([*command, "--json", "--out", str(tmp_path / "out")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["device"] == "phone"
    assert [each["changed"] for each in facts["points"]] == [True, True]
    page = (tmp_path / "out" / "frontier.html").read_text()
    assert "mean in ms per call of 1, predicted:phone" in page

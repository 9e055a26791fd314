"""Latency tables: prices by hand, Parquet there and back, step costs that add up."""

import pickle
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from pruning_envs import StepCost
from runtime_pruning import backbones, cost
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency import FIXED, LatencyTable, Row
from runtime_pruning.cost.latency_cost import LatencyStepCost, find_table, table_path
from runtime_pruning.cost.prediction_error import predicted_against_measured
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.cost.timed_units import (
    Plan,
    TimedSlicedNetwork,
    TimedUnit,
    network_key,
    pair_of,
)
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.timing.device import Device, this_device

DIGITS = (1, 8, 8)


class Two(nn.Module):
    """A first convolution, two sites, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv2(self.conv1(self.first(images)).relu()).mean((2, 3)))


NETWORK = trace(Two(), DIGITS, groups=2, align=4).eval()


def table_of(network: PrunableNetwork, entries: list[tuple[object, ...]]) -> LatencyTable:
    """Return a table from (unit, stage, input sites, output sites, widths, ms)."""
    rows = [
        Row(str(unit), "any", stage, i, o, *widths, 1, "float32", 1, 5, ms)  # type: ignore[arg-type]
        for unit, stage, i, o, widths, ms in entries
    ]
    key = network_key(network)
    return LatencyTable(tuple(rows), "here", key, "two", len(network.sites), {"cpu": "x"}, {})


# Widths of both sites: 4 and 8.
BY_HAND = table_of(
    NETWORK,
    [
        (FIXED, 0, (), (), (0, 0), 0.5),
        ("first", 0, (), (), (1, 4), 1.0),
        ("conv1", 1, (), (0,), (4, 4), 2.0),
        ("conv1", 1, (), (0,), (4, 8), 4.0),
        ("conv2", 2, (0,), (1,), (4, 4), 1.0),
        ("conv2", 2, (0,), (1,), (4, 8), 2.0),
        ("conv2", 2, (0,), (1,), (8, 4), 3.0),
        ("conv2", 2, (0,), (1,), (8, 8), 7.0),
        ("linear", 2, (1,), (), (4, 10), 0.25),
        ("linear", 2, (1,), (), (8, 10), 0.5),
    ],
)


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


# As the penalty


def test_step_costs_by_hand() -> None:
    step = LatencyStepCost(BY_HAND, NETWORK)
    assert step.dense_ms == 13
    assert step.before == pytest.approx(1.5 / 13)
    assert step(0, torch.tensor([[1], [2]])).tolist() == pytest.approx([2 / 13, 4 / 13])
    plans_BL = torch.tensor([[1, 1], [1, 2], [2, 1], [2, 2]])
    expected = [1.25 / 13, 2.5 / 13, 3.25 / 13, 7.5 / 13]
    assert step(1, plans_BL).tolist() == pytest.approx(expected)
    with pytest.raises(ConfigError, match="up to site 0 has 1 columns, but got 2"):
        step(0, plans_BL)


def test_another_networks_table_is_refused() -> None:
    other = trace(Two(), (1, 6, 6), groups=2, align=4)
    with pytest.raises(ConfigError, match=r"is of another network \('two', key "):
        LatencyStepCost(BY_HAND, other)


@pytest.fixture(scope="module")
def resnet() -> PrunableNetwork:
    shape = (3, 8, 8)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    return trace(backbone, shape).eval()


@pytest.fixture(scope="module")
def table(resnet: PrunableNetwork) -> LatencyTable:
    return calibrate(TimedSlicedNetwork(resnet), backbone="resnet20", passes=1, rounds=2)


def test_what_an_agent_pays_is_the_price(resnet: PrunableNetwork, table: LatencyTable) -> None:
    step: StepCost = LatencyStepCost(table, resnet)
    assert isinstance(step, LatencyStepCost)
    generator = torch.Generator().manual_seed(0)
    groups_BL = torch.randint(1, 5, (32, len(resnet.sites)), generator=generator)
    paid_B = sum(step(site, groups_BL[:, : site + 1]) for site in range(len(resnet.sites)))
    price_B = table.price(resnet.channels(groups_BL))
    torch.testing.assert_close((paid_B + step.before) * step.dense_ms, price_B)
    assert all(float(step(site, groups_BL[:, : site + 1]).min()) > 0 for site in range(18))
    full_1L = torch.full((1, 18), 4)
    whole = sum(float(step(site, full_1L[:, : site + 1])) for site in range(18))
    assert whole + step.before == pytest.approx(1)


def test_the_cost_travels_without_weights(resnet: PrunableNetwork, table: LatencyTable) -> None:
    step = LatencyStepCost(table, resnet)
    packed = pickle.dumps(step)
    assert len(packed) < 20_000  # the network's weights alone are 1.1 MB
    groups_BL = torch.tensor([[1, 3], [4, 2]])
    assert torch.equal(pickle.loads(packed)(1, groups_BL), step(1, groups_BL))


def test_the_registered_cost_finds_or_makes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_CALIBRATION", str(tmp_path))
    assert "latency" in cost.names()
    timed = TimedDeployedNetwork(deploy(NETWORK))
    path = table_path(tmp_path, timed)
    assert path.parent.name == timed.device.key != this_device().key
    BY_HAND.write(path)
    found = cost.get("latency")(NETWORK)
    assert found(0, torch.tensor([[2]])).tolist() == pytest.approx([4 / 13])
    path.unlink()
    made = cost.get("latency")(NETWORK)
    assert path.is_file()
    assert 0 < float(made(0, torch.tensor([[1]]))) < 1
    monkeypatch.delenv("RUNTIME_PRUNING_CALIBRATION")
    assert find_table(NETWORK).device_key == timed.device.key


# Calibration


class Spin:
    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __call__(self) -> None:
        until = time.thread_time_ns() + self.ms * 1e6
        while time.thread_time_ns() < until:
            pass


class Sleeper:
    """An executor whose units take known times: they spin for as long as their widths say."""

    def __init__(self, network: PrunableNetwork) -> None:
        self.network = network
        self.device: Device = this_device()

    def steps(self, images_BCHW: Tensor, plan: Plan) -> list[TimedUnit]:
        steps = TimedSlicedNetwork(self.network).steps(images_BCHW, plan)
        sites = self.network.sites
        return [s._replace(run=Spin(self.ms(pair_of(s, sites, plan)))) for s in steps]

    def run(self, images_BCHW: Tensor, plan: Plan) -> None:
        Spin(0.4)()  # beside the units
        for step in self.steps(images_BCHW, plan):
            step.run()

    @staticmethod
    def ms(pair: tuple[int, int]) -> float:
        return 0.05 * pair[0] * pair[1] / 8


class Saver(Sleeper):
    """Each unit makes a call when it runs alone, which the whole is spared."""

    def steps(self, images_BCHW: Tensor, plan: Plan) -> list[TimedUnit]:
        return [
            step._replace(run=Spin(0.6 + step.run.ms))
            for step in super().steps(images_BCHW, plan)
            if isinstance(step.run, Spin)
        ]

    def run(self, images_BCHW: Tensor, plan: Plan) -> None:
        for step in Sleeper.steps(self, images_BCHW, plan):
            step.run()


def test_what_the_whole_saves_is_taken_off() -> None:
    timed = Saver(NETWORK)
    table = calibrate(timed, backbone="two", passes=2, rounds=3)
    saved_ms = 0.6 * len(table.units())
    assert -1.2 * saved_ms < table.fixed_ms() < -0.4 * saved_ms  # the whole does some work beside
    assert predicted_against_measured(table, timed, plans=4, rounds=3).mape_of_dense < 0.25


def test_calibration_finds_known_times() -> None:
    timed = Sleeper(NETWORK)
    table = calibrate(timed, backbone="two", passes=3, rounds=3)
    assert table.device_key == this_device().key
    for row in table.rows:
        if row.unit != FIXED:
            expected = Sleeper.ms((row.input_width, row.output_width))
            assert row.latency_ms == pytest.approx(expected, rel=0.35, abs=0.03), row
            assert row.samples >= 9
    assert {(r.input_width, r.output_width) for r in table.rows if r.unit == "mean"} == {
        *((4, 4), (4, 8), (8, 4), (8, 8))  # conv2, named by the value after its pooling
    }
    error = predicted_against_measured(table, timed, plans=6, rounds=3)
    assert error.mape_of_dense < 0.25
    assert len(error.measured_ms) == len(error.predicted_ms) == 6
    # Narrow plans first: the widest takes longer than the narrowest by prediction and by clock.
    assert error.predicted_ms[0] < error.predicted_ms[-1]
    assert error.measured_ms[0] < error.measured_ms[-1]


def test_impossible_settings_are_refused() -> None:
    timed = TimedSlicedNetwork(NETWORK)
    with pytest.raises(ConfigError, match=r"must each be >= 1, but got \(batches=\[0\]"):
        calibrate(timed, backbone="two", batches=(0,))

"""Calibration finds times that are known, and refuses settings that cannot be."""

import pytest
from torch import Tensor
from two_sites import NETWORK

from runtime_pruning.cost import calibration
from runtime_pruning.cost.calibration import calibrate
from runtime_pruning.cost.latency import FIXED
from runtime_pruning.cost.prediction_error import predicted_against_measured
from runtime_pruning.cost.timed_units import (
    Plan,
    TimedSlicedNetwork,
    TimedUnit,
    pair_of,
)
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.timing.device import Device, this_device


class Clock:
    """Shows what the work under test adds to it, and a microsecond for being read."""

    def __init__(self) -> None:
        self.now = 0

    def thread_time_ns(self) -> int:
        self.now += 1000
        return self.now

    perf_counter_ns = thread_time_ns


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _told_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "time", CLOCK)


class Spin:
    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __call__(self) -> None:
        CLOCK.now += round(self.ms * 1e6)


class Sleeper:
    """An executor whose units take known times: as long as their widths say."""

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
    assert table.fixed_ms() == pytest.approx(-saved_ms, rel=0.05)
    assert predicted_against_measured(table, timed, plans=4, rounds=3).mape_of_dense < 0.05


def test_calibration_finds_known_times() -> None:
    timed = Sleeper(NETWORK)
    table = calibrate(timed, backbone="two", passes=3, rounds=3)
    assert table.device_key == this_device().key
    for row in table.rows:
        if row.unit != FIXED:
            expected = Sleeper.ms((row.input_width, row.output_width))
            assert row.latency_ms == pytest.approx(expected, rel=0.05, abs=0.005), row
            assert row.samples >= 9
    assert {(r.input_width, r.output_width) for r in table.rows if r.unit == "mean"} == {
        *((4, 4), (4, 8), (8, 4), (8, 8))  # conv2, named by the value after its pooling
    }
    error = predicted_against_measured(table, timed, plans=6, rounds=3)
    assert error.mape_of_dense < 0.05
    assert len(error.measured_ms) == len(error.predicted_ms) == 6
    # Narrow plans first: the widest takes longer than the narrowest by prediction and by clock.
    assert error.predicted_ms[0] < error.predicted_ms[-1]
    assert error.measured_ms[0] < error.measured_ms[-1]


def test_impossible_settings_are_refused() -> None:
    timed = TimedSlicedNetwork(NETWORK)
    with pytest.raises(ConfigError, match=r"must each be >= 1, but got \(batches=\[0\]"):
        calibrate(timed, backbone="two", batches=(0,))

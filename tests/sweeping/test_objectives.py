"""What Optuna hears of a point, and that a latency is taken once."""

from pathlib import Path
from typing import Any

import pytest

from runtime_pruning import backbones, datasets
from runtime_pruning.deploy import write_bundle
from runtime_pruning.frontier.points import OperatingPoint, Provenance, derive
from runtime_pruning.methods.recording import measure
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.sweeping.config import SweepConfig, TimingConfig
from runtime_pruning.sweeping.objectives import LATENCY, directions, latency_of, values_of
from runtime_pruning.sweeping.search import FrontierSearch

DATA = datasets.load("digits")


def sweep(*objectives: Any) -> SweepConfig:
    return SweepConfig(
        backbone="digits-cnn",
        dataset="digits",
        search={"groups": (2.0,)},
        align=4,
        objectives=objectives,
        timing=TimingConfig(images=8, batches=(4,)),
    )


@pytest.fixture
def point(tmp_path: Path) -> OperatingPoint:
    """A fixed width, its bundle in the test's folder."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    network = trace(backbone, (1, 8, 8), groups=2, align=4).eval()
    policy = FixedPolicy(network.uniform(1))
    write_bundle(tmp_path / "bundle", network, policy, backbone="digits-cnn", align=4)
    record, _ = measure(network, policy, DATA.validation.head(8), 8)
    provenance = Provenance(
        sweep_id="s1",
        config={},
        index=3,
        method="fixed-width",
        backbone="digits-cnn",
        dataset="digits",
        seed=0,
        groups=2,
        dense_macs=200_000,
    )
    return derive(record, provenance)


def test_without_a_latency_no_clock_is_needed(point: OperatingPoint, tmp_path: Path) -> None:
    def none() -> Any:
        raise AssertionError("no data is needed")

    assert latency_of(tmp_path, sweep("accuracy", "macs"), none) == {}
    wanted = directions(sweep("accuracy", "macs"))
    assert values_of(point, wanted) == [point.accuracy, point.macs_fraction]


def test_a_latency_is_taken_once_and_told_again(point: OperatingPoint, tmp_path: Path) -> None:
    wanted = sweep("accuracy", "latency")
    heard = latency_of(tmp_path, wanted, lambda: DATA)
    assert 0 < heard[LATENCY] < 1000
    (tmp_path / "bundle" / "manifest.json").unlink()
    assert latency_of(tmp_path, wanted, lambda: DATA) == heard
    assert values_of(point, directions(wanted)) is None  # the point does not hold it


def test_the_search_is_over_what_is_asked_for() -> None:
    assert directions(sweep("accuracy", "macs")) == {"accuracy": "max", "macs_fraction": "min"}
    three = sweep("accuracy", "macs", "latency")
    search = FrontierSearch(three)
    search.suggest("t0")
    search.on_trial_result("t0", {"point": 0, "accuracy": 0.9, "macs_fraction": 0.5, LATENCY: 2.0})
    search.on_trial_complete("t0")
    assert search._ot_study.trials[0].values == [0.9, 0.5, 2.0]


@pytest.mark.parametrize(
    "objectives", [(), ("accuracy",), ("macs", "latency"), ("accuracy", "macs", "macs")]
)
def test_objectives_that_trade_nothing_are_refused(objectives: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must name accuracy and a cost, each once"):
        sweep(*objectives)

"""Where points are timed, and against what."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from runtime_pruning import backbones, datasets
from runtime_pruning.deploy import write_bundle
from runtime_pruning.errors import ConfigError
from runtime_pruning.frontier.timings import read_timings
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.resources import Resources, TimingRequest
from runtime_pruning.sweeping.config import SweepConfig, TimingConfig
from runtime_pruning.sweeping.point_timing import time_point, timing_options

SWEEP = SweepConfig(
    backbone="digits-cnn",
    dataset="digits",
    method="fixed-width",
    search={"groups": (2.0,)},
    align=4,
    timing=TimingConfig(images=8, batches=(1, 8), attempts=1),
)


def write_point(folder: Path, groups: int) -> Path:
    """Write a fixed width's bundle as a trial does."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    network = trace(backbone, (1, 8, 8), groups=2, align=4).eval()
    policy = FixedPolicy(network.uniform(groups))
    write_bundle(folder / "bundle", network, policy, backbone="digits-cnn", align=4)
    return folder


def test_a_point_is_timed_once_for_each_size_of_batch(tmp_path: Path) -> None:
    narrow, dense = write_point(tmp_path / "narrow", 1), write_point(tmp_path / "dense", 2)
    data = datasets.load("digits")
    found = time_point(narrow, dense, sweep=SWEEP, data=data)
    assert [timing.batch for timing in found] == [1, 8]
    # 2.7, unless narrow channels do not pay here and the executor runs all.
    assert all(1 <= timing.macs_speedup < 3 for timing in found)
    assert all(timing.fingerprint["threads"] == "1" for timing in found)
    assert read_timings(narrow / "timings.json") == found
    (narrow / "bundle" / "manifest.json").unlink()  # what is there is not measured again
    assert time_point(narrow, dense, sweep=SWEEP, data=data) == found


def test_more_images_at_once_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="`batches <= images` must hold, but got 64 and 8"):
        TimingConfig(images=8, batches=(64,))


@pytest.fixture
def three_cores() -> Iterator[None]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("three_cores")
def test_a_timing_has_all_cores_of_its_node() -> None:
    assert timing_options(SWEEP)["num_cpus"] == 3
    on_gpu = replace(SWEEP, resources=Resources(timing=TimingRequest(gpus=1)))
    with pytest.raises(ConfigError, match=r"a node with 1 GPU\(s\)"):
        timing_options(on_gpu)

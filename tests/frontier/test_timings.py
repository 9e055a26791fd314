"""Timings as facts: stored and read back, named by the glossary, silent when contaminated."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.timings import PointTiming, read_timings, write_timings

TIMING = PointTiming(
    device="cpu-t1",
    fingerprint={"model": "a CPU"},
    batch=64,
    images=128,
    mode="ragged",
    kernels="compiled",
    verdict="faster",
    macs_speedup=2.0,
    speedup=(1.7, 1.8, 1.9),
    latency_ms={"p50": 1.0, "p90": 1.1, "p95": 1.2, "p99": 1.5},
    dense_ms=1.8,
)
CONTAMINATED = replace(
    TIMING,
    batch=1,
    verdict="contaminated",
    reasons=("rounds disagree",),
    speedup=None,
    latency_ms=None,
    dense_ms=None,
)


def test_timings_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_timings([TIMING, CONTAMINATED], tmp_path / "timings.json")
    assert read_timings(tmp_path / "timings.json") == [TIMING, CONTAMINATED]


def test_metrics_bear_the_glossarys_names() -> None:
    assert TIMING.metrics == {
        glossary.latency("cpu-t1", 64, "p50").name: 1.0,
        glossary.latency("cpu-t1", 64, "p90").name: 1.1,
        glossary.latency("cpu-t1", 64, "p95").name: 1.2,
        glossary.latency("cpu-t1", 64, "p99").name: 1.5,
        "speedup.cpu-t1.64": 1.8,
        "speedup.cpu-t1.64_low": 1.7,
        "speedup.cpu-t1.64_high": 1.9,
    }
    assert TIMING.realisation == pytest.approx(0.9)


def test_a_clock_that_could_not_be_believed_gives_no_number() -> None:
    assert CONTAMINATED.metrics == {}
    assert CONTAMINATED.realisation is None


@pytest.mark.parametrize("text", ["", "[1]", '[{"batch": 1}]', "{"])
def test_what_is_no_timing_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "timings.json"
    path.write_text(text)
    with pytest.raises(DataError, match="No timings of this version can be read"):
        read_timings(path)

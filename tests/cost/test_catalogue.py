"""Costs by name."""

from pathlib import Path

import pytest
import torch
from two_sites import BY_HAND, NETWORK

from runtime_pruning import cost
from runtime_pruning.cost.latency_cost import find_table, table_path
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.timing.device import this_device


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

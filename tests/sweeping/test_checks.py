"""What a sweep finds out of its network before it trains anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning import methods
from runtime_pruning.cli import main
from runtime_pruning.errors import ConfigError, ContractError
from runtime_pruning.methods import Manidp
from runtime_pruning.network import trace
from runtime_pruning.sweeping.checks import (
    Material,
    check_contract,
    check_settings,
    check_statistics,
    check_sweep,
    control_config,
)
from runtime_pruning.sweeping.config import ProofConfig
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.trial import trial_config
from runtime_pruning.testing import contract

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


@pytest.fixture(scope="module")
def material() -> Material:
    return check_sweep(load_preset("digits", PRESETS))


class LooksAtOthers(nn.Module):
    """Takes the mean of the whole batch off each image: alone it answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images_BCHW - images_BCHW.mean()))
        return self.head(torch.relu(self.second(hidden)).mean((2, 3)))


def test_a_sound_network_passes_and_is_not_changed(material: Material) -> None:
    before = {name: value.clone() for name, value in material.network.state_dict().items()}
    assert check_contract(material, seconds=300) == []
    after = material.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert next(material.network.parameters()).dtype == torch.float32


def test_a_proof_of_points_without_plans_is_refused() -> None:
    sweep = load_preset("digits-manidp", PRESETS)
    check_settings(sweep, Manidp)
    proved = load_preset("digits-manidp", PRESETS, ["proof.points=2"])
    with pytest.raises(ConfigError, match=r"`proof.points` must be 0 .*'manidp', but got 2"):
        check_settings(proved, Manidp)


def test_what_time_is_short_for_is_said(material: Material) -> None:
    skipped = check_contract(material, seconds=-1)
    assert [clause.name for clause in skipped] == [*contract.PROMISES][:-1]
    assert all("seconds had passed" in clause.reason for clause in skipped)


def test_what_is_shipped_is_tried_first() -> None:
    assert "deployed in float32" in next(iter(contract.PROMISES))


def test_statistics_of_other_widths_are_refused(material: Material) -> None:
    def check(**changes: Any) -> None:
        check_statistics(replace(material.sweep, **changes), material.method, material.network)

    check()
    settings = {**material.sweep.settings, "calibration_batches": 0}
    with pytest.raises(ConfigError, match=r"`settings.calibration_batches >= 1` must hold where"):
        check(settings=settings)
    with pytest.raises(ConfigError, match=r"`proof.calibration_batches >= 1`.*'digits-cnn', but"):
        check(proof=ProofConfig(calibration_batches=0))
    convs = (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3))
    bare = nn.Sequential(*convs, nn.Flatten(), nn.Linear(32, 10))
    plain = trace(bare, (1, 8, 8), groups=2, align=1)
    check_statistics(replace(material.sweep, settings=settings), material.method, plain)


def test_controls_take_the_sweeps_settings(material: Material) -> None:
    sweep = replace(material.sweep, settings={"penalty": 1.0, "calibration_batches": 3})
    assert control_config(sweep, methods.get("fixed-width")).calibration_batches == 3
    assert control_config(sweep, methods.get("dense")) == methods.get("dense").config_type()
    assert trial_config(sweep, "fixed-width", {}, "k")["calibration_batches"] == 3
    assert "penalty" not in trial_config(sweep, "fixed-width", {}, "k")


def test_a_network_that_breaks_its_contract_is_refused(material: Material) -> None:
    network = trace(LooksAtOthers(), (1, 8, 8), groups=2, align=4)
    with pytest.raises(
        ContractError, match=r"'digits-cnn' breaks its contract.*'batch modes agree"
    ):
        check_contract(replace(material, network=network), seconds=300)


def test_it_ends_in_one_sentence_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ContractError("Mode 'ragged' is off by 0.5 of the largest.")

    monkeypatch.setitem(contract.PROMISES, "batch modes agree", broken)
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(tmp_path))
    assert main(["sweep", "--preset", "digits"]) == 2
    printed = capsys.readouterr().err
    assert "'batch modes agree': Mode 'ragged' is off by 0.5" in printed
    assert list(tmp_path.iterdir()) == []

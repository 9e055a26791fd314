"""LPNet learns times that follow a known rule; a survey measures real ones; both are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from runtime_pruning import backbones
from runtime_pruning.cost.predictor import (
    LatencyPredictor,
    Survey,
    error_of,
    find_predictor,
    train_predictor,
)
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.cost.width_timing import WidthTimings, covering_widths
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.timing.device import this_device

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def macs() -> PrunedMacs:
    return PrunedMacs(backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE), SHAPE)


def ruled(macs: PrunedMacs, widths_PG: NDArray[np.int64]) -> WidthTimings:
    """Return times that are half a constant, half MACs, and a little of the first width."""
    share_P = np.array([macs(row) / macs.dense for row in widths_PG.tolist()])
    ms_P = 0.5 + 0.4 * share_P + 0.1 * widths_PG[:, 0] / 8
    return WidthTimings(widths_PG, ms_P, 1.0, 0.0, this_device())


@pytest.fixture(scope="module")
def learned(macs: PrunedMacs) -> LatencyPredictor:
    predictor, error = train_predictor(
        ruled(macs, covering_widths(macs.groups, 100)), macs, steps=600
    )
    assert error.configurations == 20
    assert error.mape < 0.03
    assert error.kendall_tau > 0.95
    return predictor


def test_a_rule_is_learned_and_foretells_what_was_not_seen(
    macs: PrunedMacs, learned: LatencyPredictor
) -> None:
    others = ruled(macs, covering_widths(macs.groups, 40, seed=9))
    assert error_of(learned, others.widths_PG, others.ms_P).mape < 0.03
    assert learned([8, 16, 16, 32]) == pytest.approx(1.0, rel=0.05)


def test_milliseconds_have_gradients_in_the_widths(learned: LatencyPredictor) -> None:
    widths_G = torch.tensor([4.0, 8, 8, 16], requires_grad=True)
    ms = learned(list(widths_G))
    torch.autograd.backward(ms)
    assert widths_G.grad is not None
    assert float(ms.detach()) == pytest.approx(learned([4, 8, 8, 16]))
    assert bool((widths_G.grad[:2] > 0).all()), "more channels of early layers take longer"


def test_a_predictor_is_kept_and_belongs_to_its_backbone(
    learned: LatencyPredictor, macs: PrunedMacs, tmp_path: Path
) -> None:
    learned.save(tmp_path / "one")
    again = LatencyPredictor.load(tmp_path / "one", macs)
    assert again([4, 8, 8, 16]) == learned([4, 8, 8, 16])
    assert again.facts["device"] == this_device().key
    other = backbones.create("faces-cnn", num_classes=2, image_shape=(3, 32, 32))
    with pytest.raises(DataError, match="'one' is of another backbone"):
        LatencyPredictor.load(tmp_path / "one", PrunedMacs(other, (3, 32, 32)))


def test_designs_cover_networks_from_narrow_to_wide(macs: PrunedMacs) -> None:
    widths_PG = covering_widths(macs.groups, 64, multiple=4)
    assert widths_PG[0].tolist() == [8, 16, 16, 32]
    assert set((widths_PG % 4).flatten().tolist()) == {0}
    share_P = np.array([macs(row) / macs.dense for row in widths_PG.tolist()])
    counts, _ = np.histogram(share_P, bins=4, range=(0, 1))
    assert counts.min() >= 5, counts
    assert all(set(widths_PG[:, g].tolist()) >= {4, 8} for g in range(4))


def test_too_few_configurations_are_refused(macs: PrunedMacs) -> None:
    with pytest.raises(ConfigError, match="`count >= 2` must hold, but got 1"):
        covering_widths(macs.groups, 1)
    with pytest.raises(ConfigError, match="At least 10 configurations"):
        train_predictor(ruled(macs, covering_widths(macs.groups, 9)), macs)


def test_a_survey_times_real_networks_and_is_found_again(tmp_path: Path) -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
    made = find_predictor(backbone, SHAPE, Survey(configurations=10, calls=3, steps=50), tmp_path)
    assert made.dense > 0
    assert made([8, 16, 16, 32]) > 0
    assert made.facts["survey"]["configurations"] == 10
    found = find_predictor(backbone, SHAPE, Survey(configurations=10), tmp_path)
    assert found([4, 8, 8, 16]) == made([4, 8, 8, 16])
    assert len(list(tmp_path.glob("*/lpnet-*.json"))) == 1

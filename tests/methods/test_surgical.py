"""What methods that remove channels for good have in common."""

from typing import Any

import pytest
from static_methods import Reported, network, task

from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, Magnitude, MagnitudeConfig, Vanilla, VanillaConfig
from runtime_pruning.network.finetuning import FinetuneConfig


def test_an_interrupted_run_reports_the_rest_of_its_targets() -> None:
    found, shares, dense = Reported(), (0.8, 0.5, 0.4), network()
    given = task(dense, points_done=2)
    settings = FinetuneConfig(epochs=0)
    Magnitude().fit(given, MagnitudeConfig(macs=shares, multiple=1, finetune=settings), found)
    assert found.count == 1
    assert 0.3 * dense_macs(dense) < dense_macs(found.network) <= 0.4 * dense_macs(dense)
    Vanilla().fit(
        task(dense, points_done=3, dense_effort=Effort(epochs=1)), VanillaConfig(macs=shares), found
    )
    assert found.count == 1


@pytest.mark.parametrize("macs", [(), (0.5, 0.0), 1.5])
def test_shares_that_are_none_are_refused(macs: Any) -> None:
    with pytest.raises(ConfigError, match="macs"):
        MagnitudeConfig(macs=macs)


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(ConfigError, match=r"a share of 0\.010 cannot be reached"):
        Magnitude().fit(task(network()), MagnitudeConfig(macs=0.01, multiple=8), Reported())

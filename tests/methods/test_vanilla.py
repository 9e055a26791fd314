"""Narrow networks trained alone, for as long as the dense one."""

import pytest
from static_methods import Reported, network, task

from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import Effort, Vanilla, VanillaConfig
from runtime_pruning.methods.vanilla import AloneConfig


def test_a_narrow_network_is_trained_from_chance_for_the_dense_effort() -> None:
    """Of 1.5 epochs two are made; nothing of the dense network is used."""
    dense = network(seed=5)
    for parameter in dense.parameters():
        parameter.data.fill_(float("nan"))
    found = Reported()
    config = VanillaConfig(macs=0.5, multiple=2, training=AloneConfig(batch_size=32))
    Vanilla().fit(task(dense), config, found)
    assert found.effort.epochs == 2
    assert dense_macs(found.network) <= 0.5 * dense_macs(dense)
    assert found.accuracy() > 0.5


def test_of_published_weights_no_effort_is_known() -> None:
    given = task(network(), dense_effort=Effort())
    with pytest.raises(ConfigError, match=r"`training\.epochs > 0` must hold"):
        Vanilla().fit(given, VanillaConfig(), Reported())

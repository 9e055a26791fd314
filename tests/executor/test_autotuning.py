"""Measuring modes and policies, and what is chosen by it."""

import copy
import time

import pytest
import torch

from deployed_networks import MeanPolicy, images, plans, traced
from runtime_pruning.executor.autotuning import measure_modes, measure_policy, random_plans
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.executor.mode_table import ModeTable
from runtime_pruning.network.policies import FixedPolicy


def test_the_mode_is_chosen_by_what_was_measured() -> None:
    network = copy.deepcopy(traced("digits-cnn", (1, 8, 8)))
    deployed = deploy(network)
    images_BCHW, plans_BL = images(network, 8), plans(network, 8, seed=3)
    unmeasured = "ragged" if "ragged" in deployed.modes else "prefix"
    assert deployed.run(images_BCHW, plans_BL).mode == unmeasured
    table = measure_modes(deployed, (1, 8), (1.0, 0.5), rounds=1, least_seconds=0.0)
    assert set(table.ratios) == {(1, 1.0), (1, 0.5), (8, 1.0), (8, 0.5)}
    assert set(table.ratios[8, 0.5]) == set(deployed.modes)
    assert all(ratio > 0 for row in table.ratios.values() for ratio in row.values())
    assert table.table().count("\n") == 5
    for mode in ("prefix", "dense", "image"):
        rows = {"image": 2.0, "prefix": 2.0, "dense": 2.0, mode: 0.5}
        deployed.mode_table = type(table)(torch.get_num_threads(), {(8, 0.5): rows})
        assert deployed.run(images_BCHW, plans_BL).mode == mode
        assert deployed.execute(images_BCHW, MeanPolicy(4)).mode == mode
    rows = {"prefix": 0.5, "ragged": 0.51}
    if "ragged" in deployed.modes:  # about as fast, whatever plans meet
        deployed.mode_table = type(table)(torch.get_num_threads(), {(8, 0.5): rows})
        assert deployed.run(images_BCHW, plans_BL).mode == "ragged"
    alike = FixedPolicy([2] * len(network.sites))
    assert deployed.execute(images_BCHW, alike).mode == "prefix"  # nothing to gather: sliced
    deployed.mode_table = type(table)(torch.get_num_threads() + 1, {(8, 0.5): rows})
    assert deployed.run(images_BCHW, plans_BL).mode == unmeasured  # measured with other threads


class SlowPolicy(MeanPolicy):
    """Takes its time."""

    seconds = 0.02

    def start(self, batch: int) -> "SlowPolicy":
        time.sleep(self.seconds)
        return self


def test_a_policy_that_costs_more_than_it_saves_is_not_asked() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    images_BCHW = images(network, 8)
    slow = SlowPolicy(4)
    table = measure_policy(deployed, images_BCHW, slow, (1, 8), rounds=1, least_seconds=0.0)
    assert set(table.ratios) == {(1, 1.0), (8, 1.0)}
    assert set(table.ratios[8, 1.0]) == {*deployed.modes, "full"}
    assert min(table.ratios[1, 1.0]["image"], table.ratios[8, 1.0]["dense"]) > 1
    found = deployed.execute(images_BCHW, slow)
    assert found.mode == "full"
    assert torch.equal(found.logits_BK, deployed.dense(images_BCHW))
    assert found.executed_macs_B.tolist() == [deployed.dense_macs] * 8
    assert found.policy_macs_B.tolist() == [0] * 8
    assert (found.groups_BL == network.groups).all()
    assert deployed.execute(images_BCHW, slow, mode="prefix").mode == "prefix"  # as it is told
    assert deployed.execute(images_BCHW, MeanPolicy(4)).mode != "full"  # another policy

    slow.seconds = 0.0  # the table is of the policy as it was, and of so many threads
    assert deployed.execute(images_BCHW, slow).mode == "full"
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert deployed.execute(images_BCHW, slow).mode != "full"


def test_a_policy_runs_in_the_mode_that_was_fastest_for_it() -> None:
    network = traced("digits-cnn", (1, 8, 8))
    deployed = deploy(network)
    policy = MeanPolicy(4)
    rows = dict.fromkeys(("image", "prefix", "dense", "full"), 1.0)
    for mode in ("image", "prefix", "dense"):
        table = ModeTable(torch.get_num_threads(), {(8, 1.0): {**rows, mode: 0.5}})
        deployed.policy_tables[policy] = table
        assert deployed.execute(images(network, 8), policy).mode == mode


def test_random_plans_come_near_a_fraction() -> None:
    deployed = deploy(traced("resnet20-cifar", (3, 16, 16)))
    for fraction in (1.0, 0.5, 0.35):
        drawn = random_plans(deployed, fraction, 16, torch.Generator().manual_seed(0))
        mean = sum(map(deployed.macs.fraction, drawn)) / len(drawn)
        assert mean == pytest.approx(fraction, abs=0.04)
    assert len(set(random_plans(deployed, 0.5, 16, torch.Generator().manual_seed(0)))) > 4

"""A network whose best plan is known: its losses and returns by hand."""

from typing import Any

import pytest
import torch

from pruning_envs.oracle import OracleNetwork, oracle_images


def oracle_settings(**changes: Any) -> dict[str, Any]:
    """Two classes, three sites, three groups: class 0 needs 1, 2, 3 groups; class 1 one each."""
    network = OracleNetwork(torch.tensor([[1, 2, 3], [1, 1, 1]]), groups=3, loss_per_group=0.5)
    images, labels = oracle_images(classes=2, copies=4)
    return {"network": network, "images": images, "labels": labels, "penalty": 0.1} | changes


def test_an_oracles_best_return_is_that_of_its_best_plan() -> None:
    network = oracle_settings()["network"]
    # Class 0 needs (1, 2, 3): three groups beyond the first at 0.1 each, or 0.5 per missing one.
    assert network.best_return(0, penalty=0.1, alpha=1.0) == pytest.approx(-0.3)
    # Dearer than the loss: leave all out. Three groups missing.
    assert network.best_return(0, penalty=0.6, alpha=1.0) == pytest.approx(-1.5)
    assert network.best_return(1, penalty=0.1, alpha=1.0) == 0.0


def test_each_missing_group_costs_the_same_cross_entropy() -> None:
    network = OracleNetwork(torch.tensor([[2, 1], [1, 3]]), groups=3, loss_per_group=0.5)
    images_NCHW, labels_N = oracle_images(classes=2, copies=1)
    run = network.start(torch.from_numpy(images_NCHW).float() / 255)
    assert run.features_BF.tolist() == [[1, 0], [0, 1]]
    run.advance(torch.tensor([1, 3]))  # one missing, and two to spare
    run.advance(torch.tensor([1, 1]))  # none missing, two missing
    assert run.finished
    loss_B = torch.nn.functional.cross_entropy(
        run.logits_BK, torch.from_numpy(labels_N), reduction="none"
    )
    assert loss_B.tolist() == pytest.approx([0.5, 1.0])
    assert run.executed_macs_B.tolist() == [2, 4]


def test_a_secret_class_shows_before_the_first_site_only() -> None:
    network = OracleNetwork(torch.tensor([[2, 1], [1, 3]]), groups=3, remind=False)
    run = network.start(torch.zeros(1, 1, 1, 1))
    assert run.features_BF.tolist() == [[1, 0]]
    run.advance(torch.tensor([1]))
    assert run.features_BF.tolist() == [[0, 0]]


def test_groups_that_there_are_not_cannot_be_needed() -> None:
    with pytest.raises(ValueError, match=r"`needed_KL` must lie in \[1, 3\]"):
        OracleNetwork(torch.tensor([[4]]), groups=3)

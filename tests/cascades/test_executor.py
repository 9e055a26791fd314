"""At work a cascade does to images what the table says, and runs no member in vain."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime_pruning.cascades import (
    Answers,
    Chooser,
    Combination,
    ThresholdChooser,
    fit_combination,
    fit_regression,
    judge,
)
from runtime_pruning.cascades.executor import CascadeExecutor, CascadeMember
from runtime_pruning.errors import ConfigError

MACS = (100, 300, 900)


class Watched:
    """Three linear networks that count the images that they see."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks = [nn.Sequential(nn.Flatten(), nn.Linear(48, 5)) for _ in MACS]
        for network in self.networks:
            network[1].weight.data *= 4
        self.seen = [0, 0, 0]

    def member(self, index: int) -> CascadeMember:
        def run(images_BCHW: Tensor) -> Tensor:
            self.seen[index] += len(images_BCHW)
            logits_BK: Tensor = self.networks[index](images_BCHW)
            return logits_BK

        return CascadeMember.static(run, MACS[index])


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def images_NCHW() -> Tensor:
    return torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def answers(watched: Watched, images_NCHW: Tensor) -> Answers:
    with torch.no_grad():
        logits = torch.stack([network(images_NCHW) for network in watched.networks], 1)
    return Answers(
        split="policy",
        content="c0ffee",
        image_ids_N=np.arange(64),
        labels_N=logits.sum(1).argmax(1).numpy(),
        log_probabilities_NMK=logits.log_softmax(2).numpy(),
        macs_NM=np.tile(MACS, (64, 1)),
    )


@pytest.mark.parametrize("rule", ["weighted", "mean", "last"])
@pytest.mark.parametrize("batch", [1, 64])
def test_it_does_what_the_table_says(
    watched: Watched, images_NCHW: Tensor, answers: Answers, rule: str, batch: int
) -> None:
    made = fit_combination(answers, rule)  # type: ignore[arg-type]
    table = made.table(answers, 1000)
    chooser = ThresholdChooser((0, 1, 2), (0.8, 0.7))
    expected = judge(table, chooser)
    assert len(set(expected.sets_N.tolist())) == 3  # it decides
    run = CascadeExecutor(
        [watched.member(index) for index in range(3)], made, chooser, num_classes=5
    )
    found = [run(part) for part in torch.split(images_NCHW, batch)]
    sets_N = np.concatenate([each.sets_B for each in found])
    assert sets_N.tolist() == expected.sets_N.tolist()
    log_NK = np.concatenate([each.log_probabilities_BK for each in found])
    np.testing.assert_allclose(log_NK, table.combined(np.arange(64), sets_N), atol=1e-4)
    macs_N = np.concatenate([each.executed_macs_B for each in found])
    assert macs_N.tolist() == (expected.costs_N * 1000).round().astype(int).tolist()
    assert watched.seen == [int((sets_N >> index & 1).sum()) for index in range(3)]


def test_decisions_cost_what_they_cost(
    watched: Watched, images_NCHW: Tensor, answers: Answers
) -> None:
    made = fit_combination(answers)
    chooser: Chooser = fit_regression(made.table(answers, 1000), 0.1)
    expected = judge(made.table(answers, 1000), chooser)
    members = [watched.member(index) for index in range(3)]
    run = CascadeExecutor(members, made, chooser, num_classes=5)
    found = run(images_NCHW)
    decided_N = expected.decisions_N * chooser.macs_per_image
    spent_N = (expected.costs_N * 1000).round().astype(int) + decided_N
    assert found.executed_macs_B.tolist() == spent_N.tolist()
    one_by_one = [run(image).executed_macs_B[0] for image in torch.split(images_NCHW, 1)]
    assert one_by_one == spent_N.tolist()


def test_one_who_stops_at_once_guesses(watched: Watched, images_NCHW: Tensor) -> None:
    made = Combination(temperatures_M=np.ones(1), weights_SM=np.array([[0.0], [1.0]]))

    class Stop:
        macs_per_image = 0

        def actions(self, features_BF: object, sets_B: np.ndarray) -> np.ndarray:
            return np.zeros(len(sets_B), np.int64)

    found = CascadeExecutor([watched.member(0)], made, Stop(), num_classes=5)(images_NCHW)
    np.testing.assert_allclose(np.exp(found.log_probabilities_BK), 0.2, rtol=1e-6)
    one = CascadeExecutor([watched.member(0)], made, Stop(), num_classes=5)(images_NCHW[:1])
    np.testing.assert_allclose(np.exp(one.log_probabilities_BK), 0.2, rtol=1e-6)
    assert watched.seen == [0, 0, 0]


def test_members_that_the_combination_does_not_know_are_refused(
    watched: Watched, answers: Answers
) -> None:
    with pytest.raises(ConfigError, match="of 3 members, but got 1"):
        CascadeExecutor(
            [watched.member(0)],
            fit_combination(answers),
            ThresholdChooser((0,), ()),
            num_classes=5,
        )

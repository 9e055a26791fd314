"""What an answer costs, and what a decision costs, by hand."""

import math

import pytest
import torch

from pruning_envs.protocols import GroupCost, answer_loss

LOGITS_BK = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
LABELS_B = torch.tensor([0, 2])


def test_answers_cost_their_cross_entropy_or_their_expected_error() -> None:
    nats_B = answer_loss(LOGITS_BK, LABELS_B, "cross-entropy")
    assert nats_B.tolist() == pytest.approx([-math.log(0.5), -math.log(0.1)])
    error_B = answer_loss(LOGITS_BK, LABELS_B, "error")
    assert error_B.tolist() == pytest.approx([0.5, 0.9])


def test_another_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`answer_loss` must be one of .* but got 'hinge'"):
        answer_loss(LOGITS_BK, LABELS_B, "hinge")  # type: ignore[arg-type]


def test_the_papers_cost_is_that_of_groups_beyond_the_first() -> None:
    groups_BS = torch.tensor([[4, 1], [2, 3]])
    assert GroupCost()(1, groups_BS).tolist() == [0, 2]
    assert GroupCost()(0, groups_BS[:, :1]).tolist() == [3, 1]

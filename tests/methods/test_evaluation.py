"""Measuring: facts by hand, on held-out images only."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.datasets import DatasetInfo, TrainingSplit, ValidationSplit
from runtime_pruning.methods.evaluation import answer, evaluate
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy

INFO = DatasetInfo(name="noise", classes=("a", "b", "c"), image_shape=(1, 4, 4))


def network() -> PrunableNetwork:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    return trace(nn.Sequential(*layers), (1, 4, 4), groups=2, align=4)


def arrays(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    return images, rng.integers(0, 3, count)


def split(count: int) -> ValidationSplit:
    return ValidationSplit.from_arrays(INFO, *arrays(count))


def test_macs_and_channels_by_hand() -> None:
    facts = evaluate(network(), FixedPolicy([1]), split(3))
    # First convolution 1 * 4 * 9 * 16, second 4 * 4 * 9 * 16, linear 4 * 3.
    assert facts.executed_macs_B.tolist() == [576 + 2304 + 12] * 3
    assert facts.channels_BL.tolist() == [[4]] * 3


def test_predictions_and_losses_are_those_of_the_network() -> None:
    some, whole = split(5), network().eval()
    facts = evaluate(whole, FixedPolicy([2]), some, batch_size=2)
    logits_BK: Tensor = whole(torch.tensor(some.images_NCHW) / 255)
    assert facts.predictions_B.tolist() == logits_BK.argmax(1).tolist()
    expected_B = functional.cross_entropy(logits_BK, torch.tensor(some.labels_N), reduction="none")
    assert facts.losses_B.tolist() == pytest.approx(expected_B.tolist(), rel=1e-5)


def test_answers_are_log_probabilities() -> None:
    some, whole = split(5), network().eval()
    facts = evaluate(whole, FixedPolicy([2]), some, batch_size=2)
    log_BK: Tensor = whole(torch.tensor(some.images_NCHW) / 255).log_softmax(1)
    np.testing.assert_allclose(facts.log_probabilities_BA, log_BK.detach().numpy(), rtol=1e-5)
    assert facts.answer_classes_BA.tolist() == [[0, 1, 2]] * 5
    assert facts.num_classes == 3


def test_of_many_classes_the_likeliest_come_first() -> None:
    logits_BK = torch.zeros(1, 150)
    logits_BK[0, [70, 90]] = torch.tensor([2.0, 3.0])
    log_BA, classes_BA = answer(logits_BK)
    assert classes_BA[0, :2].tolist() == [90, 70]
    total = 148 + np.exp(2) + np.exp(3)
    np.testing.assert_allclose(log_BA[0, :2], [3 - np.log(total), 2 - np.log(total)], rtol=1e-5)
    assert log_BA.shape == (1, 20)


def test_batches_do_not_change_the_facts() -> None:
    plans_BL = torch.tensor([[1], [2], [2], [1], [2]])
    one = evaluate(network(), PlanPolicy(plans_BL), split(5), batch_size=5)
    two = evaluate(network(), PlanPolicy(plans_BL), split(5), batch_size=2)
    assert one.channels_BL.tolist() == two.channels_BL.tolist() == [[4], [8], [8], [4], [8]]
    assert one.losses_B.tolist() == pytest.approx(two.losses_B.tolist(), rel=1e-5)


def test_a_split_that_something_learns_from_is_refused() -> None:
    training = cast(ValidationSplit, TrainingSplit.from_arrays(INFO, *arrays(2)))
    with pytest.raises(TypeError, match="held-out split only, but got a TrainingSplit"):
        evaluate(network(), FixedPolicy([1]), training)

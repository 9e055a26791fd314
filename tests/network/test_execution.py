"""What came of a batch: tensors are made of whatever counted."""

import ctypes

import numpy as np
import pytest
import torch

from runtime_pruning.network.execution import Execution, IntArrayLike


@pytest.mark.parametrize(
    "plans",
    [
        [(1, 2), (2, 1)],
        np.array([[1, 2], [2, 1]]),
        torch.tensor([[1, 2], [2, 1]]),
        (ctypes.c_int64 * 2 * 2)((1, 2), (2, 1)),
    ],
)
def test_plans_and_macs_become_tensors_when_they_are_asked_for(plans: IntArrayLike) -> None:
    found = Execution(
        logits_BK=torch.zeros(2, 3),
        plans=plans,
        macs=[100, 250],
        policy_macs=7,
        bounds_LG=torch.tensor([[0, 4, 8], [0, 2, 6]]),
        mode="sliced",
    )
    assert found.groups_BL.tolist() == [[1, 2], [2, 1]]
    assert found.channels_BL.tolist() == [[4, 6], [8, 2]]
    assert found.executed_macs_B.tolist() == [100, 250]
    assert found.policy_macs_B.tolist() == [7, 7]
    assert found.total_macs_B.tolist() == [107, 257]

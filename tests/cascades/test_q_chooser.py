"""Values by hand, from weights set by hand."""

import numpy as np
import pytest
import torch

from runtime_pruning.cascades.q_chooser import QChooser, QNetwork
from runtime_pruning.errors import ConfigError


def network() -> QNetwork:
    """Of one hidden unit that passes on the logarithm of the penalty, where it is above zero."""
    made = QNetwork(features=3, hidden=[1], actions=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.trunk[0].weight[0, 2] = 1.0
        made.advantage.weight[:, 0] = torch.tensor([1.0, -1.0])
        made.advantage.bias[:] = torch.tensor([0.0, 2.0])
        made.value.bias[:] = 5.0
    return made


def test_values_and_actions_by_hand() -> None:
    values_BA = network()(torch.tensor([[9.0, 9.0, 3.0]]))
    assert values_BA.tolist() == [[5 + 3 - 1, 5 - 1 - 1]]  # advantages 3 and -1, mean 1
    features_BF, sets_B = np.zeros((2, 2), np.float32), np.array([0, 1])
    # Stopping is worth more once the logarithm of the penalty is above one.
    assert QChooser(network(), 2.0).actions(features_BF, sets_B).tolist() == [1, 1]
    assert QChooser(network(), 3.0).actions(features_BF, sets_B).tolist() == [0, 0]


def test_macs_by_hand() -> None:
    # 17 features, two layers of 128, three members: 4 advantages and a value.
    assert QNetwork(17, [128, 128], 4).macs_per_image == 17 * 128 + 128 * 128 + 128 * 5


def test_a_penalty_must_have_a_logarithm() -> None:
    with pytest.raises(ConfigError, match="`0 < penalty < inf`"):
        QChooser(network(), 0.0)

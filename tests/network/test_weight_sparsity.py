"""The largest weights stay, worked out by hand."""

import pytest
import torch
from torch import nn

from runtime_pruning.errors import ConfigError
from runtime_pruning.network.weight_sparsity import (
    apply_masks,
    magnitude_masks,
    nonzero_parameters,
)


def layer() -> nn.Sequential:
    linear = nn.Linear(3, 2)
    linear.weight.data = torch.tensor([[1.0, -5.0, 2.0], [0.5, 3.0, -2.0]])
    return nn.Sequential(linear)


def test_the_largest_weights_of_a_layer_stay() -> None:
    network = layer()
    masks = magnitude_masks(network, {"0": 0.5})
    assert masks["0"].tolist() == [[False, True, True], [False, True, False]]
    apply_masks(network, masks)
    assert network.get_parameter("0.weight").tolist() == [[0, -5, 2], [0, 3, 0]]
    assert nonzero_parameters(network) == 3 + 2


def test_one_weight_stays_at_least() -> None:
    assert int(magnitude_masks(layer(), {"0": 0.01})["0"].sum()) == 1


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"0": 0.0}, "`0 < share kept <= 1`"),
        ({"1": 0.5}, "convolution or linear layer, but got '1'"),
    ],
)
def test_wrong_shares_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        magnitude_masks(layer(), shares)

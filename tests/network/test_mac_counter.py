"""Two operations per multiply-accumulate, as PyTorch counts them."""

import torch
from torch.nn import functional

from runtime_pruning.network.mac_counter import MacCounter


def test_products_are_counted_and_nothing_else() -> None:
    with MacCounter() as counter:
        torch.rand(3, 5) @ torch.rand(5, 7)
    assert counter.flops == 2 * 3 * 5 * 7
    with counter:
        functional.conv2d(torch.rand(2, 4, 6, 6), torch.rand(8, 2, 3, 3), groups=2).relu() + 1
    assert counter.flops == 2 * (105 + 2 * 8 * 16 * 18)

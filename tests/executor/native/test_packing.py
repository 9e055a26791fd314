"""Weights are packed once for all widths."""

import itertools

import torch

from runtime_pruning.executor.native import packing


def test_every_width_is_a_prefix_of_one_packing() -> None:
    weight = torch.randn(40, 24, 3, 3)
    packed = packing.Packed(weight, None)
    addresses = {packed.row(*width).weight for width in itertools.product((8, 24), (8, 40))}
    assert len(addresses) == 1

"""Images that share widths, gathered and put back."""

import pytest
import torch
from torch import nn

from runtime_pruning.network.sliced_calls import add_channels, assemble, buckets, convolve


def test_images_are_gathered_by_their_widths() -> None:
    reads_B, writes_B = torch.tensor([2, 4, 2, 2]), torch.tensor([8, 8, 8, 6])
    found = {(b.inputs, b.outputs): b.rows_N.tolist() for b in buckets(reads_B, writes_B)}
    assert found == {(2, 6): [3], (2, 8): [0, 2], (4, 8): [1]}
    (one,) = buckets(3, torch.tensor([5, 5]))
    assert (one.inputs, one.outputs, one.rows_N.tolist()) == (3, 5, [0, 1])


@pytest.mark.parametrize("learns", [True, False])
def test_pieces_are_put_back_in_order_with_zeros_behind_them(learns: bool) -> None:
    narrow, wide = torch.full((2, 1, 1, 1), 3.0), torch.full((1, 2, 1, 1), 5.0)
    with torch.set_grad_enabled(learns):
        whole = assemble([narrow, wide], [torch.tensor([0, 2]), torch.tensor([1])])
    assert whole[:, :, 0, 0].tolist() == [[3.0, 0.0], [5.0, 5.0], [3.0, 0.0]]


@pytest.mark.parametrize("learns", [True, False])
def test_the_narrower_is_added_to_the_first_channels(learns: bool) -> None:
    narrow, wide = torch.ones(1, 1, 1, 1), torch.full((1, 3, 1, 1), 2.0)
    with torch.set_grad_enabled(learns):
        for one, other in ((narrow, wide), (wide, narrow)):
            assert add_channels(one, other).flatten().tolist() == [3.0, 2.0, 2.0]
    assert wide.flatten().tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_a_slice_of_a_convolution_pads_as_the_whole_does(mode: str) -> None:
    conv = nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode)
    features = torch.rand(2, 2, 5, 5)
    assert conv.bias is not None
    sliced = convolve(conv, features, conv.weight[:3], conv.bias[:3])
    torch.testing.assert_close(sliced, conv(features)[:, :3])

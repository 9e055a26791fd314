"""Calls at real widths: images that share widths are gathered, run together, and put back.

Dimensions: B images, C channels, H W pixels, N images of a bucket.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.network.weight_slices import layout_of

# Channels of a value: the same for all images, or a count per image (B, int64, on the CPU).
Extent: TypeAlias = int | Tensor


class Bucket(NamedTuple):
    """Images of a batch that share widths."""

    rows_N: Tensor  # int64
    inputs: int  # channels read
    outputs: int  # channels computed


def buckets(source: Extent, own: Extent) -> Iterator[Bucket]:
    """Yield the images that share (input width, output width)."""
    span = 1 << 32
    keys, owner_B = torch.unique(torch.as_tensor(source * span + own), return_inverse=True)
    for index, key in enumerate(keys.tolist()):
        inputs, outputs = divmod(key, span)
        yield Bucket((owner_B == index).nonzero()[:, 0], inputs, outputs)


def assemble(pieces: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Put the images back in order, at the largest width; absent channels are zeros."""
    width = max(piece.shape[1] for piece in pieces)
    rows_B = torch.cat(rows).to(pieces[0].device)
    if torch.is_grad_enabled():
        padding = [0, 0] * (pieces[0].ndim - 2)
        padded = [functional.pad(piece, (*padding, 0, width - piece.shape[1])) for piece in pieces]
        return torch.cat(padded).index_select(0, torch.argsort(rows_B))
    shape = (rows_B.shape[0], width, *pieces[0].shape[2:])
    like = pieces[0]
    whole = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout_of(like))
    if any(piece.shape[1] < width for piece in pieces):
        whole.zero_()
    for piece, rows_N in zip(pieces, rows, strict=True):
        whole[:, : piece.shape[1]].index_copy_(0, rows_N.to(whole.device), piece)
    return whole


def add_channels(one: Tensor, other: Tensor) -> Tensor:
    """Return the sum, the narrower part added to the first channels of the wider."""
    if one.shape[1] == other.shape[1]:
        return one + other
    wide, narrow = (one, other) if one.shape[1] > other.shape[1] else (other, one)
    missing = wide.shape[1] - narrow.shape[1]
    if torch.is_grad_enabled():
        return wide + functional.pad(narrow, (*[0, 0] * (narrow.ndim - 2), 0, missing))
    total = wide.clone()
    total[:, : narrow.shape[1]] += narrow
    return total


def convolve(conv: nn.Conv2d, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Run a convolution with a slice of its weights; its groups follow from the shapes."""
    padding: Any = conv.padding
    if conv.padding_mode != "zeros":
        features = functional.pad(
            features, conv._reversed_padding_repeated_twice, mode=conv.padding_mode
        )
        padding = 0
    groups = features.shape[1] // weight.shape[1]
    return functional.conv2d(features, weight, bias, conv.stride, padding, conv.dilation, groups)

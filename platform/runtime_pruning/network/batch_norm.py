"""Batch norm on the first channels of a module, when some images lack some of them.

Statistics of a channel are taken over the images that compute it, and over no other: this is what
a sliced network sees, and a masked one must agree with it.

What a convolution returns depends on how many channels it reads, so a batch norm behind one that
reads pruned channels may keep statistics per width read (`condition`). Images of different widths
can then share a batch, and none is normalised by the statistics of another's width.
Source: Yu et al., "Slimmable Neural Networks", ICLR 2019 (switchable batch norm, there for widths
of the whole network).

Dimensions: B images, C channels, H W pixels, W widths read.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Channels that the convolution before a batch norm reads: of all images, or per image (B, int64).
Read: TypeAlias = int | Tensor
# An attribute of a module: values seen per channel and width since `start_counting`.
_SEEN = "_values_seen"


class Statistics(NamedTuple):
    """Mean and variance per channel, as views: what is written to them stays."""

    mean_C: Tensor | None
    var_C: Tensor | None
    seen_C: Tensor | None  # values seen since `start_counting`, where it was called


def condition(norm: Norm, widths: Sequence[int]) -> None:
    """Let a module keep statistics for each number of channels that its convolution may read.

    The present statistics are the start of each. Those of the greatest width stay where they are,
    in ``running_mean`` and ``running_var``: the plain backbone knows no other.

    Args:
        norm: with running statistics. Gets the buffers ``narrow_widths`` (W), ``narrow_means`` and
            ``narrow_vars`` (C, W).
        widths: ascending; the last is the full one.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    narrow = torch.tensor(sorted(widths)[:-1], dtype=torch.int64)
    norm.register_buffer("narrow_widths", narrow.to(norm.running_mean.device))
    columns = [1, len(narrow)]
    norm.register_buffer("narrow_means", norm.running_mean[:, None].repeat(columns))
    norm.register_buffer("narrow_vars", norm.running_var[:, None].repeat(columns))


def is_conditioned(module: nn.Module) -> bool:
    """Whether `condition` was called on the module."""
    return "narrow_widths" in module._buffers


def statistics(norm: Norm, read: int | None) -> Statistics:
    """Return a module's statistics for one number of channels read.

    A width that the module does not know is served by the next greater one.
    """
    column = _column(norm, read)
    seen_CW = norm.__dict__.get(_SEEN)
    if column is None:
        seen_C = None if seen_CW is None else seen_CW[:, -1]
        return Statistics(norm.running_mean, norm.running_var, seen_C)
    seen_C = None if seen_CW is None else seen_CW[:, column]
    return Statistics(
        norm.get_buffer("narrow_means")[:, column],
        norm.get_buffer("narrow_vars")[:, column],
        seen_C,
    )


def batch_norm(
    norm: Norm, features: Tensor, present_BC: Tensor | None, read: Read | None = None
) -> Tensor:
    """Return features of the same shape, normalised by the module's first channels.

    Args:
        norm: in training mode its running statistics are updated.
        features: shape (B, C, H, W) or (B, C), C at most the module's.
        present_BC: which channels each image computes; None: all of them. What is returned in
            absent channels has no meaning.
        read: channels that the convolution before has read; None where it always reads all.
    """
    if isinstance(read, Tensor) and is_conditioned(norm):
        return _per_image(norm, features, present_BC, read)
    width = read if isinstance(read, int) else None
    learning = norm.training or norm.running_mean is None
    if learning and (present_BC is not None or _SEEN in norm.__dict__):
        return _over_present(norm, features, present_BC, statistics(norm, width))
    return _fused(norm, features, statistics(norm, width), learning)


def start_counting(norm: Norm) -> None:
    """From now on, training passes make the running statistics a plain average over all values."""
    device = None if norm.running_mean is None else norm.running_mean.device
    narrow = norm._buffers.get("narrow_widths")
    columns = 1 if narrow is None else len(narrow) + 1
    seen_CW = torch.zeros(norm.num_features, columns, dtype=torch.int64, device=device)
    norm.__dict__[_SEEN] = seen_CW


def stop_counting(norm: nn.Module) -> None:
    """Return to the module's own momentum."""
    norm.__dict__.pop(_SEEN, None)


def _column(norm: Norm, read: int | None) -> int | None:
    """Return which narrow width's statistics apply; None for the full width's."""
    narrow = norm._buffers.get("narrow_widths")
    if read is None or narrow is None:
        return None
    return next((i for i, width in enumerate(narrow.tolist()) if read <= width), None)


def _per_image(norm: Norm, features: Tensor, present_BC: Tensor | None, read_B: Tensor) -> Tensor:
    """Normalise each image by the statistics of the width that it reads."""
    narrow = norm.get_buffer("narrow_widths")
    column_B = torch.searchsorted(narrow, read_B.to(narrow.device))
    if norm.training:
        return _class_by_class(norm, features, present_BC, read_B, column_B)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    width = features.shape[1]
    mean_WC = torch.cat([norm.get_buffer("narrow_means"), norm.running_mean[:, None]], 1)[:width].T
    var_WC = torch.cat([norm.get_buffer("narrow_vars"), norm.running_var[:, None]], 1)[:width].T
    scale_WC = torch.rsqrt(var_WC + norm.eps)
    if norm.affine:
        scale_WC = scale_WC * norm.weight[:width]
    shift_WC = -mean_WC * scale_WC
    if norm.affine:
        shift_WC = shift_WC + norm.bias[:width]
    whole = (*features.shape[:2], *[1] * (features.ndim - 2))
    scale_B, shift_B = scale_WC[column_B].view(whole), shift_WC[column_B].view(whole)
    return torch.addcmul(shift_B.to(features.dtype), features, scale_B.to(features.dtype))


def _class_by_class(
    norm: Norm, features: Tensor, present_BC: Tensor | None, read_B: Tensor, column_B: Tensor
) -> Tensor:
    """Normalise the images of each width read by their own mean and variance, in training."""
    parts, rows = [], []
    for column in sorted(set(column_B.tolist())):
        rows_N = (column_B == column).nonzero()[:, 0]
        present_NC = None if present_BC is None else present_BC[rows_N.to(present_BC.device)]
        read = int(read_B[rows_N[0].to(read_B.device)])
        chosen = features.index_select(0, rows_N.to(features.device))
        parts.append(_over_present(norm, chosen, present_NC, statistics(norm, read)))
        rows.append(rows_N)
    order_B = torch.argsort(torch.cat(rows)).to(features.device)
    return torch.cat(parts).index_select(0, order_B)


def _fused(norm: Norm, features: Tensor, own: Statistics, learning: bool) -> Tensor:
    """Normalise by torch's own kernel."""
    width, momentum = features.shape[1], norm.momentum
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
    # The kernel writes to contiguous vectors only.
    mean_C, var_C = (None if v is None else v[:width].contiguous() for v in own[:2])
    momentum = 0.0 if momentum is None else momentum
    result = _by_torch(norm, features, mean_C, var_C, learning=learning, momentum=momentum)
    if norm.training:
        for vector_C, moved_C in zip(own[:2], (mean_C, var_C), strict=True):
            if vector_C is not None and moved_C is not None and not vector_C.is_contiguous():
                vector_C[:width].copy_(moved_C)
    return result


def _by_torch(
    norm: Norm,
    features: Tensor,
    mean_C: Tensor | None,
    var_C: Tensor | None,
    *,
    learning: bool,
    momentum: float,
) -> Tensor:
    """Call torch's kernel on the first channels; it writes to the statistics where it learns."""
    width = features.shape[1]
    return functional.batch_norm(
        features,
        mean_C,
        var_C,
        None if norm.weight is None else norm.weight[:width],
        None if norm.bias is None else norm.bias[:width],
        training=learning,
        momentum=momentum,
        eps=norm.eps,
    )


def _over_present(
    norm: Norm, features: Tensor, present_BC: Tensor | None, own: Statistics
) -> Tensor:
    """Normalise by the mean and variance over present images, in float32 or better."""
    batch, width = features.shape[:2]
    pixels = features[0, 0].numel()
    if present_BC is None and batch * pixels > 1:
        return _over_all(norm, features, own)
    if present_BC is None:
        present_BC = torch.ones(batch, width, dtype=torch.bool, device=features.device)
    count_C = present_BC.sum(0) * pixels
    whole = [*present_BC.shape, *[1] * (features.ndim - 2)]
    over = [0, *range(2, features.ndim)]
    values = features.to(torch.promote_types(features.dtype, torch.float32))
    present = present_BC.view(whole).to(values.dtype)
    mean_C = (values * present).sum(over) / count_C.clamp(min=1)
    centred = values - mean_C.view(whole[1:])
    var_C = (centred.square() * present).sum(over) / count_C.clamp(min=1)
    if norm.training:
        unbiased_C = var_C * count_C / (count_C - 1).clamp(min=1)
        _update(norm, own, mean_C.detach(), unbiased_C.detach(), count_C)
    scale_C = torch.rsqrt(var_C + norm.eps)
    if norm.affine:
        scale_C = scale_C * norm.weight[:width]
    normalised = centred * scale_C.view(whole[1:])
    if norm.affine:
        normalised = normalised + norm.bias[:width].view(whole[1:])
    return normalised.to(features.dtype)


def _over_all(norm: Norm, features: Tensor, own: Statistics) -> Tensor:
    """Do the same, faster, where all images compute all channels: by torch's own kernel."""
    width = features.shape[1]
    precise = torch.promote_types(features.dtype, torch.float32)
    mean_C, unbiased_C = torch.zeros(2, width, dtype=precise, device=features.device)
    # By this momentum, what it writes to the running statistics are those of this batch.
    result = _by_torch(norm, features, mean_C, unbiased_C, learning=True, momentum=1.0)
    if norm.training:
        count_C = torch.full_like(mean_C, features.numel() // width, dtype=torch.int64)
        _update(norm, own, mean_C, unbiased_C, count_C)
    return result


@torch.no_grad()
def _update(
    norm: Norm, own: Statistics, mean_C: Tensor, unbiased_C: Tensor, count_C: Tensor
) -> None:
    """Move the running statistics of the channels that were computed at all."""
    if own.mean_C is None or own.var_C is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    width, like = mean_C.shape[0], own.mean_C
    share_C = _share(norm, own.seen_C, count_C).to(like)
    own.mean_C[:width].lerp_(mean_C.to(like), share_C)
    own.var_C[:width].lerp_(unbiased_C.to(like), share_C)


def _share(norm: Norm, seen_C: Tensor | None, count_C: Tensor) -> Tensor:
    """Return the weight, per channel, of this batch in the running statistics."""
    if seen_C is not None:
        seen_C[: len(count_C)] += count_C
        return count_C / seen_C[: len(count_C)].clamp(min=1)
    momentum = norm.momentum
    if momentum is None:
        momentum = 1 / float(norm.num_batches_tracked or 1)
    return (count_C > 0).float() * momentum

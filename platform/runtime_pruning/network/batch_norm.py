"""Batch norm on the first channels of a module, when some images lack some of them.

Statistics of a channel are taken over the images that compute it, and over no other: this is what
a sliced network sees, and a masked one must agree with it.

Dimensions: B images, C channels, H W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# An attribute of a module: values seen per channel since `start_counting`.
_SEEN = "_values_seen"


def batch_norm(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, features: Tensor, present_BC: Tensor | None
) -> Tensor:
    """Return features of the same shape, normalised by the module's first channels.

    Args:
        norm: in training mode its running statistics are updated.
        features: shape (B, C, H, W) or (B, C), C at most the module's.
        present_BC: which channels each image computes; None: all of them. What is returned in
            absent channels has no meaning.
    """
    width = features.shape[1]
    learning = norm.training or norm.running_mean is None
    if learning and (present_BC is not None or _SEEN in norm.__dict__):
        return _over_present(norm, features, present_BC)
    momentum = norm.momentum
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
    return functional.batch_norm(
        features,
        _first(norm.running_mean, width),
        _first(norm.running_var, width),
        _first(norm.weight, width),
        _first(norm.bias, width),
        training=learning,
        momentum=0.0 if momentum is None else momentum,
        eps=norm.eps,
    )


def start_counting(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """From now on, training passes make the running statistics a plain average over all values."""
    device = None if norm.running_mean is None else norm.running_mean.device
    norm.__dict__[_SEEN] = torch.zeros(norm.num_features, dtype=torch.int64, device=device)


def stop_counting(norm: nn.Module) -> None:
    """Return to the module's own momentum."""
    norm.__dict__.pop(_SEEN, None)


def _first(vector_C: Tensor | None, width: int) -> Tensor | None:
    """Return the first ``width`` elements as a view; updates in place reach the whole."""
    if vector_C is None or vector_C.shape[0] == width:
        return vector_C
    return vector_C[:width]


def _over_present(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, features: Tensor, present_BC: Tensor | None
) -> Tensor:
    """Normalise by the mean and variance over present images, in float32 or better."""
    batch, width = features.shape[:2]
    pixels = features[0, 0].numel()
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
    _update(norm, mean_C.detach(), var_C.detach(), count_C)
    scale_C = torch.rsqrt(var_C + norm.eps)
    if norm.affine:
        scale_C = scale_C * norm.weight[:width]
    normalised = centred * scale_C.view(whole[1:])
    if norm.affine:
        normalised = normalised + norm.bias[:width].view(whole[1:])
    return normalised.to(features.dtype)


@torch.no_grad()
def _update(
    norm: nn.BatchNorm1d | nn.BatchNorm2d, mean_C: Tensor, var_C: Tensor, count_C: Tensor
) -> None:
    """Move the running statistics of the channels that were computed at all."""
    if not norm.training or norm.running_mean is None or norm.running_var is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    width, like = mean_C.shape[0], norm.running_mean
    share_C = _share(norm, count_C).to(like)
    unbiased_C = var_C * count_C / (count_C - 1).clamp(min=1)
    norm.running_mean[:width].lerp_(mean_C.to(like), share_C)
    norm.running_var[:width].lerp_(unbiased_C.to(like), share_C)


def _share(norm: nn.BatchNorm1d | nn.BatchNorm2d, count_C: Tensor) -> Tensor:
    """Return the weight, per channel, of this batch in the running statistics."""
    seen_C = norm.__dict__.get(_SEEN)
    if seen_C is not None:
        seen_C[: len(count_C)] += count_C
        return count_C / seen_C[: len(count_C)].clamp(min=1)
    momentum = norm.momentum
    if momentum is None:
        momentum = 1 / float(norm.num_batches_tracked or 1)
    return (count_C > 0).float() * momentum

"""Measuring a policy: which held-out image was given which channels, and what came of it.

Dimensions: B images, K classes, A classes whose log-probabilities are kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from runtime_pruning.datasets import HeldOutSplit, Split, to_float
from runtime_pruning.frontier.records import kept_classes
from runtime_pruning.network import Answered, PrunableNetwork
from runtime_pruning.network.policies import Policy


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The facts of one evaluation, one row per image.

    Attributes:
        predictions_B: class index, int64.
        losses_B: cross-entropy in nats, float32.
        channels_BL: channels that ran at each site, int64.
        executed_macs_B: MACs that were executed, the policy's own included, int64.
        log_probabilities_BA: of the classes that a record keeps, nats, float32.
        answer_classes_BA: which these are, int64.
        num_classes: K.
    """

    predictions_B: np.ndarray[Any, Any]
    losses_B: np.ndarray[Any, Any]
    channels_BL: np.ndarray[Any, Any]
    executed_macs_B: np.ndarray[Any, Any]
    log_probabilities_BA: np.ndarray[Any, Any]
    answer_classes_BA: np.ndarray[Any, Any]
    num_classes: int


def evaluate(
    network: PrunableNetwork, policy: Policy, split: HeldOutSplit, *, batch_size: int = 256
) -> Measured:
    """Run ``policy`` on every image of a held-out split, sliced, and return the facts.

    Args:
        network: is put into evaluation mode.
        policy: what chooses the plans.
        split: images that nothing was trained on.
        batch_size: images per batch.

    Raises:
        TypeError: the split is one that something learns from.
    """
    if not isinstance(split, HeldOutSplit):
        raise TypeError(
            f"A policy is measured on a held-out split only, but got a {type(split).__name__}."
        )
    return judge(network, policy, split, batch_size=batch_size)


def judge(
    network: PrunableNetwork, policy: Policy, split: Split, *, batch_size: int = 256
) -> Measured:
    """Do what `evaluate` does on images of any split: for choosing, never for reporting."""
    network.eval()
    run = partial(network.execute, policy=policy, mode="sliced")
    return measured(run, split, next(network.parameters()).device, batch_size=batch_size)


@torch.inference_mode()
def measured(
    run: Callable[[torch.Tensor], Answered],
    split: Split,
    device: torch.device,
    *,
    batch_size: int = 256,
) -> Measured:
    """Return the facts of whatever answers: a network under its policy, or a bundle.

    Args:
        run: answers a batch of images, float32 in [0, 1], on ``device``.
        split: the images.
        device: where ``run`` takes them.
        batch_size: images per batch.
    """
    parts = list(_batches(run, split, device, batch_size))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    predictions_B, losses_B, channels_BL, executed_macs_B, log_BA, classes_BA = columns
    return Measured(
        predictions_B=predictions_B,
        losses_B=losses_B,
        channels_BL=channels_BL,
        executed_macs_B=executed_macs_B,
        log_probabilities_BA=log_BA,
        answer_classes_BA=classes_BA,
        num_classes=len(split.info.classes),
    )


def batches(
    split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield a split's ``images_BCHW``, float32 on a device, with ``labels_B``, in order."""
    labels_N = torch.from_numpy(np.array(split.labels_N))
    for start in range(0, len(split), batch_size):
        part = slice(start, start + batch_size)
        yield to_float(split.images_NCHW[part]).to(device), labels_N[part]


def _batches(
    run: Callable[[torch.Tensor], Answered], split: Split, device: torch.device, batch_size: int
) -> Iterator[tuple[np.ndarray[Any, Any], ...]]:
    """Yield predictions, losses, channels, executed MACs and answers batch by batch."""
    for images_BCHW, labels_B in batches(split, batch_size, device):
        found = run(images_BCHW)
        logits_BK = found.logits_BK.cpu()
        losses_B = functional.cross_entropy(logits_BK, labels_B, reduction="none")
        yield (
            logits_BK.argmax(1).numpy(),
            losses_B.float().numpy(),
            found.channels_BL.cpu().numpy(),
            found.total_macs_B.cpu().numpy(),
            *answer(logits_BK),
        )


def answer(logits_BK: torch.Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return ``log_probabilities_BA`` and ``answer_classes_BA``, as a record keeps them."""
    log_BK = logits_BK.float().log_softmax(1)
    kept = kept_classes(log_BK.shape[1])
    if kept == log_BK.shape[1]:
        return log_BK.numpy(), torch.arange(kept).expand(log_BK.shape).numpy()
    likeliest = log_BK.topk(kept, dim=1)
    return likeliest.values.numpy(), likeliest.indices.numpy()

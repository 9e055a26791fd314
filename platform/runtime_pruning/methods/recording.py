"""What a policy does to a split, as a record: the facts that an operating point is derived from."""

from typing import Any

import numpy as np
import torch

from runtime_pruning.cost.macs import policy_macs
from runtime_pruning.datasets import HeldOutSplit, PolicySplit, TestSplit
from runtime_pruning.frontier.records import AnswerKind, Judged, Record
from runtime_pruning.methods.evaluation import Measured, evaluate, judge
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import Policy


def measure(
    network: PrunableNetwork,
    policy: Policy,
    split: HeldOutSplit | PolicySplit,
    batch_size: int,
    *,
    content: str | None = None,
) -> tuple[Record, float]:
    """Return the record of a policy on a split, and its mean analytic MACs per image.

    Args:
        network: is put into evaluation mode.
        policy: what chooses the plans.
        split: a policy split too, for choosers of cascades to learn on.
        batch_size: images per batch.
        content: hash of the dataset's content; with it the record keeps the answers.
    """
    if isinstance(split, PolicySplit):
        facts = judge(network, policy, split, batch_size=batch_size)
    else:
        facts = evaluate(network, policy, split, batch_size=batch_size)
    computed_B = policy_macs(network, policy, torch.from_numpy(facts.channels_BL))
    analytic_macs = float(np.asarray(computed_B, dtype=np.float64).mean())
    return record_of(facts, split, content=content), analytic_macs


def record_of(
    facts: Measured, split: HeldOutSplit | PolicySplit, *, content: str | None = None
) -> Record:
    """Return facts as a record of a split; with a hash of the dataset's content it has answers."""
    kept: dict[str, Any] = {}
    if content is not None:
        kept = {
            "answers": AnswerKind(num_classes=facts.num_classes, content=content),
            "log_probabilities_NA": facts.log_probabilities_BA,
            "answer_classes_NA": facts.answer_classes_BA,
        }
    return Record.from_arrays(
        split=split_name(split),
        image_ids_N=split.ids_N,
        labels_N=split.labels_N,
        predictions_N=facts.predictions_B,
        losses_N=facts.losses_B,
        channels_NL=facts.channels_BL,
        executed_macs_N=facts.executed_macs_B,
        sources_N=split.sources_N,
        **kept,
    )


def split_name(split: HeldOutSplit | PolicySplit) -> Judged:
    """Return the name that a record carries for a split."""
    if isinstance(split, PolicySplit):
        return "policy"
    return "test" if isinstance(split, TestSplit) else "validation"

"""What a policy looks at, read off its records: where it spends, on which images, and how surely.

Difficulty is the decile of the dense network's loss on the same image, 0 the easiest. Information
is in bits, above chance: mutual information minus its mean over shuffled images, since counting
alone finds some wherever there are few images to a plan.

Dimensions: N images, L sites, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime_pruning import glossary
from runtime_pruning.errors import DataError
from runtime_pruning.frontier.proof import Proof
from runtime_pruning.frontier.records import Ints, Record

DECILES = 10
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the images: a class or a decile.

    Attributes:
        name: which.
        images: how many.
        accuracy: share of right predictions among them.
        macs_per_image: mean of their executed MACs.
    """

    name: str
    images: int
    accuracy: float
    macs_per_image: float


@dataclass(frozen=True, kw_only=True)
class SiteUse:
    """What a policy does at one site.

    Attributes:
        channels: that run with 1, 2, ... G groups.
        shares: of the images that run them.
        class_information: bits that the groups tell of the class.
    """

    channels: tuple[int, ...]
    shares: tuple[float, ...]
    class_information: float


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """How a policy's decisions vary, and with what.

    Attributes:
        sites: per site.
        cost_quantiles: executed MACs by quantile.
        by_class, by_difficulty: slices; no difficulty where the dense network was not measured.
        distinct_plans: how many different plans there are.
        commonest_plan_share: share of the images that get the most frequent one.
        plan_entropy: of the plans, bits.
        information: bits that plan or cost (its decile) tell of class or difficulty, by the name
            ``<plan or cost>_<class or difficulty>``.
    """

    sites: tuple[SiteUse, ...]
    cost_quantiles: Mapping[str, float]
    by_class: tuple[Slice, ...]
    by_difficulty: tuple[Slice, ...]
    distinct_plans: int
    commonest_plan_share: float
    plan_entropy: float
    information: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class UpperBound:
    """An oracle that knows the label, and the policy, on the same sample of images.

    Attributes:
        images: of the sample.
        accuracy, macs_per_image: of the oracle, whose choice costs nothing.
        policy_accuracy, policy_macs_per_image: of the policy.
    """

    images: int
    accuracy: float
    macs_per_image: float
    policy_accuracy: float
    policy_macs_per_image: float


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """All that is said of one point's decisions on one split."""

    point_id: str
    split: str
    dense_macs: int
    proof: Proof
    decisions: Decisions
    upper_bound: UpperBound | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the verdict included."""
        return {"verdict": self.proof.verdict, "numbers": self.numbers, **asdict(self)}

    @property
    def numbers(self) -> dict[str, float]:
        """What is tracked, by the names of the glossary."""
        decisions = self.decisions
        numbers = {
            glossary.DISTINCT_PLANS.name: float(decisions.distinct_plans),
            glossary.COMMONEST_PLAN_SHARE.name: decisions.commonest_plan_share,
            glossary.PLAN_ENTROPY.name: decisions.plan_entropy,
            **{f"{name}_information": bits for name, bits in decisions.information.items()},
        }
        for control, gain in self.proof.advantages.items():
            ends = {"": gain.value, "_low": gain.low, "_high": gain.high}
            numbers |= {f"advantage_{control}{end}": value for end, value in ends.items()}
        if (bound := self.upper_bound) is not None:
            numbers |= {
                glossary.ORACLE_ACCURACY.name: bound.accuracy,
                glossary.ORACLE_MACS_FRACTION.name: bound.macs_per_image / self.dense_macs,
                glossary.ORACLE_POLICY_ACCURACY.name: bound.policy_accuracy,
                glossary.ORACLE_POLICY_MACS_FRACTION.name: bound.policy_macs_per_image
                / self.dense_macs,
            }
        return numbers


def decisions_of(
    record: Record,
    bounds_LG: Sequence[Sequence[int]],
    classes: Sequence[str],
    dense: Record | None,
    shown: Sequence[int] | None = None,
) -> Decisions:
    """Return what a record shows of the decisions.

    Args:
        record: of the policy.
        bounds_LG: channels that run with 1, 2, ... G groups, per site.
        classes: names of the labels.
        dense: record of the dense network on the same images.
        shown: sites that decisions are seen at, as many as there are bounds; None for all.

    Raises:
        DataError: the dense network was measured on other images.
    """
    channels_NL = record.channels_NL if shown is None else record.channels_NL[:, list(shown)]
    plans_N = _codes(channels_NL)
    cost_N = _deciles(record.executed_macs_N)
    deciles_N = None if dense is None else difficulty(record, dense)
    counts = np.bincount(plans_N)
    targets = {"class": record.labels_N}
    if deciles_N is not None:
        targets["difficulty"] = deciles_N
    quantiles = np.quantile(record.executed_macs_N, _QUANTILES, method="inverted_cdf")
    return Decisions(
        sites=tuple(
            _site_use(channels_NL[:, site], record.labels_N, channels)
            for site, channels in enumerate(bounds_LG)
        ),
        cost_quantiles={f"{q:g}": float(v) for q, v in zip(_QUANTILES, quantiles, strict=True)},
        by_class=_slices(record, record.labels_N, classes),
        by_difficulty=()
        if deciles_N is None
        else _slices(record, deciles_N, [str(decile) for decile in range(DECILES)]),
        distinct_plans=len(counts),
        commonest_plan_share=float(counts.max() / len(record)),
        plan_entropy=_entropy(plans_N),
        information={
            f"{name}_{what}": information(source_N, target_N)
            for name, source_N in (("plan", plans_N), ("cost", cost_N))
            for what, target_N in targets.items()
        },
    )


def difficulty(record: Record, dense: Record) -> Ints:
    """Return ``deciles_N``: which tenth of the images an image is in, by the dense loss.

    Raises:
        DataError: the two records are of different images.
    """
    if not np.array_equal(record.image_ids_N, dense.image_ids_N):
        raise DataError("Difficulty needs the dense network's record of the same images.")
    ranks_N = np.argsort(np.argsort(dense.losses_N, kind="stable"), kind="stable")
    return ranks_N * DECILES // len(ranks_N)


def upper_bound_of(record: Record, oracle: Record) -> UpperBound:
    """Return an oracle's figures beside those of the policy on the same images.

    Raises:
        DataError: the oracle saw images that the policy did not.
    """
    rows_N = np.flatnonzero(np.isin(record.image_ids_N, oracle.image_ids_N))
    if len(rows_N) != len(oracle):
        raise DataError("An oracle's images must be among those that the policy was measured on.")
    return UpperBound(
        images=len(oracle),
        accuracy=float(oracle.correct_N.mean()),
        macs_per_image=float(oracle.executed_macs_N.mean()),
        policy_accuracy=float(record.correct_N[rows_N].mean()),
        policy_macs_per_image=float(record.executed_macs_N[rows_N].mean()),
    )


def information(
    source_N: npt.ArrayLike, target_N: npt.ArrayLike, *, shuffles: int = 20, seed: int = 0
) -> float:
    """Return the mutual information of two labellings in bits, minus what chance finds.

    Args:
        source_N: whole numbers from 0, one per image.
        target_N: the same; what ``source_N`` tells of it is returned.
        shuffles: how often chance is asked.
        seed: of the shuffles.
    """
    source, target = np.asarray(source_N, np.int64), np.asarray(target_N, np.int64)
    rng, width = np.random.default_rng(seed), int(target.max()) + 1
    joint = _entropy(source * width + target)
    by_chance = [
        _entropy(source * width + rng.permutation(target)) for _ in range(max(1, shuffles))
    ]
    return float(np.mean(by_chance) - joint)


def _entropy(labels_N: Ints) -> float:
    """Return the entropy of a labelling in bits."""
    _, counts = np.unique(labels_N, return_counts=True)
    shares = counts / counts.sum()
    return float(abs(-(shares * np.log2(shares)).sum()))


def _codes(plans_NL: npt.NDArray[np.int16]) -> Ints:
    """Return a whole number per image, the same for the same plan."""
    _, codes_N = np.unique(plans_NL, axis=0, return_inverse=True)
    return np.asarray(codes_N, dtype=np.int64).reshape(-1)


def _deciles(values_N: Ints) -> Ints:
    """Return which tenth a value falls in; equal values fall in the same."""
    edges = np.quantile(values_N, np.arange(1, DECILES) / DECILES, method="inverted_cdf")
    return np.searchsorted(np.unique(edges), values_N, side="left").astype(np.int64)


def _site_use(
    channels_N: npt.NDArray[np.int16], labels_N: Ints, channels: Sequence[int]
) -> SiteUse:
    ran_N = np.searchsorted(channels, channels_N).astype(np.int64)
    shares = np.bincount(ran_N, minlength=len(channels)) / len(labels_N)
    return SiteUse(
        channels=tuple(int(count) for count in channels),
        shares=tuple(shares.tolist()),
        class_information=information(ran_N, labels_N),
    )


def _slices(record: Record, labels_N: Ints, names: Sequence[str]) -> tuple[Slice, ...]:
    """Return the figures of each label that occurs."""
    chosen = [(name, labels_N == label) for label, name in enumerate(names)]
    return tuple(
        Slice(
            name=name,
            images=int(rows_N.sum()),
            accuracy=float(record.correct_N[rows_N].mean()),
            macs_per_image=float(record.executed_macs_N[rows_N].mean()),
        )
        for name, rows_N in chosen
        if rows_N.any()
    )

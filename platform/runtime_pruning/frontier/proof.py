"""Proof of dynamics: does a policy gain anything by looking at the image?

A policy is held against four controls on its own images. *Fixed*: the best widths that are the same
for every image, at the policy's executed MACs, the decision network's own included: those that a
search found on the policy's weights, the policy's commonest plan, the sweep's uniform widths, and
the dense network. *Shuffled*: the policy's own plans, dealt out to the images at random. *Random*:
plans with the same histogram at each site and the same mean MACs; neither runs a decision network.
*Threshold*: the fixed widths one after the other, until their combined answer is confident enough:
one number looks at the image, too. It is no control of a policy that is such a threshold itself.

Equal MACs: of fixed plans and of thresholds there are several, cheaper and dearer ones. The control
is the best of them, and of the mixtures of two, that costs no more than the policy: each image is
given the dearer one with the probability that makes the means equal. Its accuracy is computed as
an expectation from the two records. The best is chosen on the very images, in every redraw anew:
so that choosing has no say in a gain, and a policy has to beat all of them.

An advantage is a difference of accuracies, with a paired percentile bootstrap over images (those of
one source together) and over the seeds of a control. Each redraw holds two images more, drawn like
the others, one that the policy alone gets right and one that the control alone does: where few
images tell the two apart, the interval is as wide as counting allows.
Source of the two: Bonett & Price, "Adjusted Wald Confidence Interval for a Difference of Binomial
Proportions Based on Paired Data", Journal of Educational and Behavioral Statistics 37, 2012.

Dimensions: N images, R redraws, P records, S records of one control, M plans or mixtures of two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.dominance import Doubles
from runtime_pruning.frontier.records import Record, read_record
from runtime_pruning.frontier.uncertainty import Evidence, Replicates, interval, resample

Verdict = Literal["dynamic", "static", "not better than a threshold"]
ControlName = Literal["fixed", "shuffled", "random", "threshold"]
CONTROLS: tuple[ControlName, ...] = ("fixed", "shuffled", "random", "threshold")
# Of several, the best at the policy's cost counts; of the others, the mean over seeds.
HULLS: tuple[ControlName, ...] = ("fixed", "threshold")
RULE = 2  # counts changes to what a proof makes of the same records


@dataclass(frozen=True)
class Controls:
    """The records of a point's controls, all of the images that the point was measured on.

    Attributes:
        fixed: fixed plans, cheap and dear.
        shuffled: the policy's plans, shuffled; one record per seed.
        random: random plans with the same histogram; one record per seed.
        threshold: cascades of the fixed widths by a threshold, cheap and dear; none where the
            policy is such a threshold itself.

    Raises:
        DataError: another control has no record.
    """

    fixed: tuple[Record, ...]
    shuffled: tuple[Record, ...]
    random: tuple[Record, ...]
    threshold: tuple[Record, ...] = ()

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in CONTROLS}
        if not all(counts[name] for name in CONTROLS if name != "threshold"):
            raise DataError(f"Each control needs a record at least, but got {counts}.")

    @property
    def names(self) -> tuple[ControlName, ...]:
        """The controls that there are."""
        return tuple(name for name in CONTROLS if getattr(self, name))

    @classmethod
    def read(cls, folder: Path) -> "Controls":
        """Return what lies in a folder as ``<control>-<number>.parquet``.

        Raises:
            DataError: a control has no record.
        """
        return cls(*(tuple(read_record(path) for path in _paths(folder, n)) for n in CONTROLS))


def control_path(folder: Path, name: ControlName, number: int) -> Path:
    """Return where a control's record lies; the number is its seed, or which fixed plan it is."""
    return folder / f"{name}-{number}.parquet"


def _paths(folder: Path, name: ControlName) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.parquet"))


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """What a policy gains over one control.

    Attributes:
        value: accuracy of the policy minus that of the control, in [-1, 1].
        low, high: its bootstrap interval.
        accuracy: of the control.
        macs_per_image: executed by the control.
    """

    value: float
    low: float
    high: float
    accuracy: float
    macs_per_image: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A policy against its controls.

    Attributes:
        fixed, shuffled, random: what it gains over each.
        threshold: the same; None where it is a threshold itself.
        level: coverage of the intervals.
        rule: by which the gains were found; those by another are not compared.
    """

    fixed: Advantage
    shuffled: Advantage
    random: Advantage
    threshold: Advantage | None = None
    level: float
    rule: int = RULE

    @property
    def verdict(self) -> Verdict:
        """What the gains over fixed widths, shuffled plans and a threshold, above zero, make it."""
        if min(self.fixed.low, self.shuffled.low) <= 0:
            return "static"
        if self.threshold is not None and self.threshold.low <= 0:
            return "not better than a threshold"
        return "dynamic"

    @property
    def advantages(self) -> dict[ControlName, Advantage]:
        """The gain over each control that there is."""
        found = {name: getattr(self, name) for name in CONTROLS}
        return {name: gain for name, gain in found.items() if gain is not None}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Proof":
        """Return the proof that :func:`dataclasses.asdict` made plain."""
        gains = {name: Advantage(**facts[name]) for name in CONTROLS if facts.get(name)}
        return cls(**gains, level=facts["level"], rule=facts.get("rule", 1))


# Proofs by the id of the point that they are of.
Proofs: TypeAlias = Mapping[str, Proof]


def prove(
    record: Record,
    controls: Controls,
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Proof:
    """Return what a policy gains over each of its controls.

    Args:
        record: of the policy.
        controls: measured on the same images.
        replicates: redraws of images and seeds.
        level: coverage of the intervals.
        seed: of the redraws.

    Raises:
        DataError: a control was measured on other images.
    """
    evidence = [Evidence.of(record)]
    evidence += [Evidence.of(each) for name in controls.names for each in getattr(controls, name)]
    rng = np.random.default_rng(seed)
    redrawn = resample(evidence, replicates=replicates, rng=rng)
    seen = Replicates(
        np.array([[each.correct_N.mean() for each in evidence]]),
        np.array([[each.executed_macs_N.mean() for each in evidence]]),
    )
    found = _compare(seen, controls, None)
    spread = _compare(redrawn, controls, rng)
    pairs_R2 = rng.poisson(1.0, (replicates, 2)) / len(record)
    gains = {
        name: _advantage(found[name], spread[name].gain_R + pairs_R2 @ (1.0, -1.0), level)
        for name in controls.names
    }
    return Proof(
        fixed=gains["fixed"],
        shuffled=gains["shuffled"],
        random=gains["random"],
        threshold=gains.get("threshold"),
        level=level,
    )


class _Control(NamedTuple):
    """A control in every redraw, and what the policy gains over it."""

    accuracy_R: Doubles
    macs_R: Doubles
    gain_R: Doubles


def _compare(
    means: Replicates, controls: Controls, rng: np.random.Generator | None
) -> dict[ControlName, _Control]:
    """Return each control's means; ``rng`` redraws the seeds, None takes each once."""
    columns = iter(range(1, means.accuracy_RP.shape[1]))
    found: dict[ControlName, _Control] = {}
    for name in controls.names:
        chosen = [next(columns) for _ in getattr(controls, name)]
        accuracy_RS, macs_RS = means.accuracy_RP[:, chosen], means.macs_RP[:, chosen]
        # Differences, so that equal accuracies differ by nothing, rounding included.
        gain_RS = means.accuracy_RP[:, :1] - accuracy_RS
        shares_RS = (
            _best_mixture(gain_RS, macs_RS, means.macs_RP[:, 0])
            if name in HULLS
            else _dealt(macs_RS, rng)
        )
        found[name] = _Control(
            *((shares_RS * each).sum(axis=1) for each in (accuracy_RS, macs_RS, gain_RS))
        )
    return found


def _best_mixture(gain_RS: Doubles, macs_RS: Doubles, wanted_R: Doubles) -> Doubles:
    """Return the shares of images that get each plan in the best mixture that is affordable.

    Where all plans cost more than is wanted, the cheapest serves.
    """
    redraws, plans = macs_RS.shape
    pairs_M2 = np.array([(one, two) for one in range(plans) for two in range(plans)])
    low_RM, high_RM = macs_RS[:, pairs_M2[:, 0]], macs_RS[:, pairs_M2[:, 1]]
    dearer_RM = np.clip((wanted_R[:, None] - low_RM) / np.maximum(high_RM - low_RM, 1.0), 0.0, 1.0)
    dearer_RM[high_RM <= low_RM] = 0.0  # one plan alone
    one_RM, two_RM = gain_RS[:, pairs_M2[:, 0]], gain_RS[:, pairs_M2[:, 1]]
    mixed_RM = (1 - dearer_RM) * one_RM + dearer_RM * two_RM
    affordable_RM = low_RM <= np.maximum(wanted_R, macs_RS.min(axis=1))[:, None]
    best_R = np.where(affordable_RM, mixed_RM, np.inf).argmin(axis=1)
    rows = np.arange(redraws)
    shares_RS = np.zeros_like(macs_RS)
    np.add.at(shares_RS, (rows, pairs_M2[best_R, 0]), 1 - dearer_RM[rows, best_R])
    np.add.at(shares_RS, (rows, pairs_M2[best_R, 1]), dearer_RM[rows, best_R])
    return shares_RS


def _dealt(macs_RS: Doubles, rng: np.random.Generator | None) -> Doubles:
    """Return the weight of each seed: alike, or as often as it was redrawn."""
    redraws, seeds = macs_RS.shape
    if rng is None:
        return np.full((redraws, seeds), 1 / seeds)
    result: Doubles = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=redraws) / seeds
    return result


def _advantage(found: _Control, gain_R: Doubles, level: float) -> Advantage:
    """Return the gain over one control with the interval of its redraws."""
    # Sums of shares: rounding must not turn nothing into something.
    ends = interval(gain_R[:, None].round(12), level)
    return Advantage(
        value=float(found.gain_R[0]),
        low=float(ends.low_P[0]),
        high=float(ends.high_P[0]),
        accuracy=float(found.accuracy_R[0]),
        macs_per_image=float(found.macs_R[0]),
    )

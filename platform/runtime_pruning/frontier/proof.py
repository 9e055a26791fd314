"""Proof of dynamics: does a policy gain anything by looking at the image?

A policy is held against three controls on its own weights and images. *Fixed*: the best widths that
are the same for every image, at the policy's executed MACs, the decision network's own included.
*Shuffled*: the policy's own plans, dealt out to the images at random. *Random*: plans with the same
histogram at each site and the same mean MACs. The last two run the backbone MACs of the policy and
no decision network.

Equal MACs against fixed widths: two fixed plans bracket the policy's mean cost, and the control is
their mixture, each image being given the dearer one with the probability that makes the means
equal. Its accuracy is computed as an expectation from the two records, in every redraw anew.

An advantage is a difference of accuracies, with a paired percentile bootstrap over images and over
the seeds of a control. Dimensions: N images, R redraws, P records.
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

Verdict = Literal["dynamic", "static"]
ControlName = Literal["fixed", "shuffled", "random"]
CONTROLS: tuple[ControlName, ...] = ("fixed", "shuffled", "random")


@dataclass(frozen=True)
class Controls:
    """The records of a point's controls, all of the images that the point was measured on.

    Attributes:
        fixed: one fixed plan, or the two that bracket the policy's mean MACs, cheaper first.
        shuffled: the policy's plans, shuffled; one record per seed.
        random: random plans with the same histogram; one record per seed.

    Raises:
        DataError: a control has no record, or more than two plans are fixed.
    """

    fixed: tuple[Record, ...]
    shuffled: tuple[Record, ...]
    random: tuple[Record, ...]

    def __post_init__(self) -> None:
        counts = {name: len(getattr(self, name)) for name in CONTROLS}
        if not (0 < counts["fixed"] <= 2 and counts["shuffled"] and counts["random"]):
            raise DataError(
                f"Controls need one or two fixed plans and a seed each, but got {counts}."
            )

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
        level: coverage of the intervals.
    """

    fixed: Advantage
    shuffled: Advantage
    random: Advantage
    level: float

    @property
    def verdict(self) -> Verdict:
        """``dynamic`` if the gains over fixed widths and over shuffled plans are above zero."""
        return "dynamic" if min(self.fixed.low, self.shuffled.low) > 0 else "static"

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> "Proof":
        """Return the proof that :func:`dataclasses.asdict` made plain."""
        return cls(**{name: Advantage(**facts[name]) for name in CONTROLS}, level=facts["level"])


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
    evidence += [Evidence.of(each) for name in CONTROLS for each in getattr(controls, name)]
    rng = np.random.default_rng(seed)
    redrawn = resample(evidence, replicates=replicates, rng=rng)
    seen = Replicates(
        np.array([[each.correct_N.mean() for each in evidence]]),
        np.array([[each.executed_macs_N.mean() for each in evidence]]),
    )
    found = _compare(seen, controls, None)
    spread = _compare(redrawn, controls, rng)
    return Proof(
        **{name: _advantage(seen, found[name], spread[name], level) for name in CONTROLS},
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
    for name in CONTROLS:
        chosen = [next(columns) for _ in getattr(controls, name)]
        accuracy_RS, macs_RS = means.accuracy_RP[:, chosen], means.macs_RP[:, chosen]
        shares_RS = (
            _mixture(macs_RS, means.macs_RP[:, 0]) if name == "fixed" else _dealt(macs_RS, rng)
        )
        accuracy_R = (shares_RS * accuracy_RS).sum(axis=1)
        macs_R = (shares_RS * macs_RS).sum(axis=1)
        # Weighted differences, so that equal accuracies differ by nothing, rounding included.
        gain_R = (shares_RS * (means.accuracy_RP[:, :1] - accuracy_RS)).sum(axis=1)
        found[name] = _Control(accuracy_R, macs_R, gain_R)
    return found


def _mixture(macs_RS: Doubles, wanted_R: Doubles) -> Doubles:
    """Return the share of images that get each fixed plan, so that mean MACs are those wanted.

    A mean outside of what the plans cost is served by the nearer plan.
    """
    if macs_RS.shape[1] == 1:
        return np.ones_like(macs_RS)
    low_R, high_R = macs_RS.T
    dearer_R = np.clip((wanted_R - low_R) / np.maximum(high_R - low_R, 1.0), 0.0, 1.0)
    return np.stack([1 - dearer_R, dearer_R], axis=1)


def _dealt(macs_RS: Doubles, rng: np.random.Generator | None) -> Doubles:
    """Return the weight of each seed: alike, or as often as it was redrawn."""
    redraws, seeds = macs_RS.shape
    if rng is None:
        return np.full((redraws, seeds), 1 / seeds)
    result: Doubles = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=redraws) / seeds
    return result


def _advantage(seen: Replicates, found: _Control, spread: _Control, level: float) -> Advantage:
    """Return the gain over one control with its interval."""
    ends = interval(spread.gain_R[:, None], level)
    return Advantage(
        value=float(found.gain_R[0]),
        low=float(ends.low_P[0]),
        high=float(ends.high_P[0]),
        accuracy=float(found.accuracy_R[0]),
        macs_per_image=float(found.macs_R[0]),
    )

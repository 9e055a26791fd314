"""Operating points: one policy measured on held-out images, with where it came from.

A point's id and its trial's key are hashes of what they are, never of when or where they ran: a
trial that is started again under another name yields the same ids.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import HeldOut, Record

FEW_CLASSES = 10  # of so many, five say little


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces, numpy scalars plain.

    Raises:
        DataError: the value holds something that JSON cannot say, NaN and infinity included.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"A configuration must be plain JSON, but got {value!r}.") from error


def trial_key(config: dict[str, Any]) -> str:
    """Return the 12 hexadecimal digits that name a configuration, whatever trial runs it."""
    return _digest(canonical_json(config), 12)


def point_id(sweep_id: str, key: str, index: int) -> str:
    """Return the 16 hexadecimal digits that name the ``index``-th point of a trial of a sweep."""
    return _digest(canonical_json([sweep_id, key, index]), 16)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an operating point came from.

    Attributes:
        sweep_id: the sweep that asked for it.
        config: the trial's configuration, plain JSON; its hash is the trial's key.
        index: which of the trial's points, from 0.
        method, backbone, dataset: registered names.
        groups: channel groups per site.
        penalty: reward lost per unit of cost; None where the method has none.
        code_version: version or commit of the code.
        dense_macs: MACs of the unpruned backbone on one image.
        env_steps, train_seconds, epochs: training effort spent on the point so far.
        saw_held_out: whether the network may have learned on the validation images, as one with
            published weights has that learned on a whole training set.
    """

    sweep_id: str
    config: dict[str, Any]
    index: int
    method: str
    backbone: str
    dataset: str
    seed: int
    groups: int
    dense_macs: int
    penalty: float | None = None
    code_version: str = "unknown"
    env_steps: int = 0
    train_seconds: float = 0.0
    epochs: float = 0.0
    saw_held_out: bool = False

    def __post_init__(self) -> None:
        if not self.sweep_id or any(c in self.sweep_id for c in "'\"`/"):
            raise DataError(
                f"`sweep_id` must be non-empty, without quotes or '/', but got {self.sweep_id!r}."
            )
        for name, low in (("index", 0), ("groups", 1), ("dense_macs", 1), ("env_steps", 0)):
            if getattr(self, name) < low:
                raise DataError(f"`{name} >= {low}` must hold, but got {getattr(self, name)}.")
        # Tuples become lists now, or a point would differ from itself after storage.
        object.__setattr__(self, "config", json.loads(canonical_json(self.config)))

    @property
    def trial_key(self) -> str:
        """The hash of the configuration."""
        return trial_key(self.config)

    @property
    def point_id(self) -> str:
        """The hash of sweep, configuration and index."""
        return point_id(self.sweep_id, self.trial_key, self.index)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Numbers read off a record.

    Attributes:
        images: how many images they rest on.
        accuracy: share of right predictions, in [0, 1].
        loss: mean cross-entropy in nats; None where it is not finite.
        executed_macs_per_image: mean of the MACs counted while running.
        macs_per_image: mean of the MACs computed from the plans; equal to the executed ones
            unless a method's claim and its execution differ.
        macs_fraction: executed MACs over the dense backbone's, policy included.
        top5: share of images whose label is among the five likeliest classes; None where there are
            ten classes or fewer, or the answers were not kept.
        executed_macs_p50, executed_macs_p90, executed_macs_p99: quantiles over images: the
            smallest cost that at least that share of the images does not exceed.
    """

    images: int
    accuracy: float
    loss: float | None
    executed_macs_per_image: float
    macs_per_image: float
    macs_fraction: float
    executed_macs_p50: float
    executed_macs_p90: float
    executed_macs_p99: float
    top5: float | None = None


@dataclass(frozen=True, kw_only=True)
class OperatingPoint(Provenance):
    """One policy, measured: provenance and figures.

    Attributes:
        split: of the images.
        figures: what came of it.
        seeds: of the replicates that the figures are the mean of, where there are several.
    """

    split: HeldOut
    figures: Figures = field(repr=False)
    seeds: tuple[int, ...] = ()

    @property
    def chooses(self) -> bool:
        """Whether a choice may rest on the figures: they are of images that were not learned on."""
        return not (self.saw_held_out and self.split == "validation")

    @property
    def accuracy(self) -> float:
        """Share of right predictions, in [0, 1]."""
        return self.figures.accuracy

    @property
    def macs_fraction(self) -> float:
        """Executed MACs over the dense backbone's."""
        return self.figures.macs_fraction

    @property
    def executed_macs_per_image(self) -> float:
        """Mean of the MACs counted while running."""
        return self.figures.executed_macs_per_image

    @property
    def macs_per_image(self) -> float:
        """Mean of the MACs computed from the plans."""
        return self.figures.macs_per_image

    @property
    def provenance(self) -> Provenance:
        """The point without its figures."""
        return Provenance(**{name: getattr(self, name) for name in Provenance.__annotations__})

    def to_json(self) -> str:
        """Return provenance and figures: whoever has the text need not read the record again."""
        facts = {**asdict(self.provenance), "split": self.split}
        return canonical_json({**facts, "figures": asdict(self.figures)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the point that :meth:`to_json` wrote, with the figures of that time.

        Raises:
            DataError: the text is no point, or one of another version.
        """
        try:
            facts = json.loads(text)
            return cls(**{**facts, "figures": Figures(**facts["figures"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"No point of this version can be read: {error!r}") from error

    def check_against(self, record: Record) -> None:
        """Derive the figures anew.

        Raises:
            DataError: the record is of another split, or gives other figures.
        """
        analytic = self.figures.macs_per_image
        derived = derive(record, self.provenance, analytic_macs_per_image=analytic)
        if derived.split != self.split:
            raise DataError(f"A point of the {self.split} split has a record of {record.split}.")
        figures = derived.figures
        if self.figures.top5 is None:  # as points of earlier versions
            figures = replace(figures, top5=None)
        if figures != self.figures:
            raise DataError(
                f"Point {self.point_id} must have the figures that its record gives, "
                f"{figures}, but got {self.figures}."
            )


def derive(
    record: Record, provenance: Provenance, *, analytic_macs_per_image: float | None = None
) -> OperatingPoint:
    """Return the operating point that a record shows.

    Args:
        record: the facts.
        provenance: where they came from.
        analytic_macs_per_image: mean computed cost of the plans, policy included; the executed
            mean stands in where it is not given.

    Raises:
        DataError: the record is of the policy split.
    """
    figures = figures_of(
        record, provenance.dense_macs, analytic_macs_per_image=analytic_macs_per_image
    )
    facts = {name: getattr(provenance, name) for name in Provenance.__annotations__}
    return OperatingPoint(**facts, split=record.held_out, figures=figures)


def referred_to(point: OperatingPoint, dense_macs: int) -> OperatingPoint:
    """Return a point whose fraction of MACs is counted from another dense network."""
    fraction = point.figures.executed_macs_per_image / dense_macs
    figures = replace(point.figures, macs_fraction=fraction)
    return replace(point, dense_macs=dense_macs, figures=figures)


def figures_of(
    record: Record, dense_macs: int, *, analytic_macs_per_image: float | None = None
) -> Figures:
    """Return the numbers that a record shows; see :class:`Figures`."""
    macs_N = record.executed_macs_N
    executed = float(macs_N.mean())
    loss = float(record.losses_N.mean(dtype=np.float64))
    p50, p90, p99 = np.quantile(macs_N, (0.5, 0.9, 0.99), method="inverted_cdf").tolist()
    return Figures(
        images=len(record),
        accuracy=float(record.correct_N.mean()),
        loss=loss if math.isfinite(loss) else None,
        executed_macs_per_image=executed,
        macs_per_image=executed if analytic_macs_per_image is None else analytic_macs_per_image,
        macs_fraction=executed / dense_macs,
        executed_macs_p50=float(p50),
        executed_macs_p90=float(p90),
        executed_macs_p99=float(p99),
        top5=_top5(record),
    )


def _top5(record: Record) -> float | None:
    """Return the share of images whose label is among the five likeliest classes."""
    if record.answers is None or record.answers.num_classes <= FEW_CLASSES:
        return None
    five_N5 = np.argsort(-record.log_probabilities_NA, axis=1, kind="stable")[:, :5]
    classes_N5 = np.take_along_axis(record.answer_classes_NA, five_N5, axis=1)
    return float((classes_N5 == record.labels_N[:, None]).any(axis=1).mean())


def _digest(text: str, digits: int) -> str:
    """Return the first hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _plain(value: object) -> object:
    """Return numpy's scalars as Python's; refuse the rest."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain JSON")

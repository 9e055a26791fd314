"""What a record shows of one point beside its figures: classes, costs, sites, extreme images.

A few hundred bytes per point, so that a page and a chooser of thousands of points need no record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from runtime_pruning.frontier.records import Ints, Record

BINS = 20
EXTREMES = 6  # images at either end of the cost


class Spent(NamedTuple):
    """One image, and what a policy did with it."""

    image_id: int
    macs: int
    label: int
    prediction: int


class Histogram(NamedTuple):
    """How many images cost how much: `BINS` bins of one width from `low` to `high` MACs."""

    low: int
    high: int
    images: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Details:
    """Counts of a record.

    Attributes:
        class_images: by label, how many images there are.
        class_right: by label, how many of them are classified rightly.
        costs: histogram of the executed MACs.
        sites: per site, how many images run so many channels.
        least, most: images that the policy spends least and most on, the extreme one first; of
            equal costs the smaller id comes first. Empty where every image costs the same.
    """

    class_images: tuple[int, ...]
    class_right: tuple[int, ...]
    costs: Histogram
    sites: tuple[Mapping[int, int], ...]
    least: tuple[Spent, ...]
    most: tuple[Spent, ...]

    @classmethod
    def of(cls, record: Record) -> "Details":
        """Return what a record shows."""
        classes = int(record.labels_N.max()) + 1
        macs_N = record.executed_macs_N
        varies = bool(macs_N.min() < macs_N.max())
        return cls(
            class_images=_counts(record.labels_N, classes),
            class_right=_counts(record.labels_N[record.correct_N], classes),
            costs=_histogram(macs_N),
            sites=tuple(_ran(record.channels_NL[:, site]) for site in range(record.num_sites)),
            least=_extreme(record, macs_N) if varies else (),
            most=_extreme(record, -macs_N) if varies else (),
        )

    @property
    def class_accuracy(self) -> tuple[float | None, ...]:
        """By label, the share of right predictions; None for a class without images."""
        pairs = zip(self.class_right, self.class_images, strict=True)
        return tuple(right / images if images else None for right, images in pairs)


def class_loss(details: Details, dense: Details) -> float:
    """Return the largest loss of accuracy of any class against the dense network, in [-1, 1].

    Below zero every class has gained.
    """
    pairs = zip(dense.class_accuracy, details.class_accuracy, strict=True)
    return max(before - now for before, now in pairs if before is not None and now is not None)


def _counts(labels_N: Ints, classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels_N, minlength=classes).tolist())


def _histogram(macs_N: Ints) -> Histogram:
    low, high = int(macs_N.min()), int(macs_N.max())
    counts, _ = np.histogram(macs_N, bins=BINS, range=(low, max(high, low + 1)))
    return Histogram(low, high, tuple(counts.tolist()))


def _ran(channels_N: np.ndarray) -> Mapping[int, int]:
    widths, counts = np.unique(channels_N, return_counts=True)
    return dict(zip(widths.tolist(), counts.tolist(), strict=True))


def _extreme(record: Record, by_N: Ints) -> tuple[Spent, ...]:
    """Return the images with the smallest values."""
    rows = np.argsort(by_N, kind="stable")[:EXTREMES]
    columns = (
        record.image_ids_N,
        record.executed_macs_N,
        record.labels_N,
        record.predictions_N,
    )
    return tuple(Spent(*(int(column[row]) for column in columns)) for row in rows)

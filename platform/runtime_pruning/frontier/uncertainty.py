"""How sure a frontier is: Wilson's intervals, and a paired bootstrap over the held-out images.

All points are measured on the same images, so one draw of images serves all of them: differences
between points are then far surer than the points themselves. Images that were made from one source
are drawn together: what is drawn are the sources.

Dimensions: P points, N images, S sources, R replicates.
Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927;
Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13 (percentile interval);
Davison & Hinkley, "Bootstrap Methods and Their Application", 1997, 3.8 (drawing whole clusters).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier.dominance import Doubles, pareto_mask
from runtime_pruning.frontier.records import Bools, Ints, Record


class Evidence(NamedTuple):
    """What the bootstrap needs of a record: some 25 bytes per image.

    Attributes:
        image_ids_N: ascending.
        correct_N: where the prediction is right; of replicates the share that are.
        executed_macs_N: of replicates the mean.
        sources_N: what each image was made from.
        by_seed_S: accuracy of each replicate, where there are several.
    """

    image_ids_N: Ints
    correct_N: Bools | Doubles
    executed_macs_N: Ints | Doubles
    sources_N: Ints
    by_seed_S: tuple[float, ...] = ()

    @classmethod
    def of(cls, record: Record) -> "Evidence":
        """Return a record's evidence."""
        return cls(
            record.image_ids_N.copy(),
            record.correct_N,
            record.executed_macs_N.copy(),
            record.sources_N.copy(),
        )


class Interval(NamedTuple):
    """Both ends of an interval, one per point."""

    low_P: Doubles
    high_P: Doubles


class Replicates(NamedTuple):
    """Accuracy and mean executed MACs of every point in every redraw of the images."""

    accuracy_RP: Doubles
    macs_RP: Doubles


def resample(
    evidence: Sequence[Evidence], *, replicates: int, rng: np.random.Generator
) -> Replicates:
    """Redraw the images' sources with replacement, for all points at once.

    Args:
        evidence: one per point, all of the same images.
        replicates: R, how many redraws.
        rng: the source of chance.

    Raises:
        DataError: two points were measured on different images.
        ConfigError: fewer than one replicate.
    """
    if replicates < 1:
        raise ConfigError(f"`replicates >= 1` must hold, but got {replicates}.")
    ids_N = evidence[0].image_ids_N
    if any(not np.array_equal(ids_N, other.image_ids_N) for other in evidence[1:]):
        raise DataError("Points of one frontier must be measured on the same images.")
    correct_NP = np.stack([e.correct_N for e in evidence], axis=1).astype(np.float64)
    macs_NP = np.stack([e.executed_macs_N for e in evidence], axis=1).astype(np.float64)
    values = np.concatenate([correct_NP, macs_NP], axis=1)
    means = np.empty((replicates, values.shape[1]))
    sources, source_N = np.unique(evidence[0].sources_N, return_inverse=True)
    count = len(sources)
    for r in range(replicates):
        times_S = np.bincount(rng.integers(count, size=count), minlength=count)
        times_N = times_S[source_N]
        means[r] = times_N @ values / times_N.sum()
    accuracy_RP, macs_RP = np.split(means, 2, axis=1)
    for p, facts in enumerate(evidence):
        if facts.by_seed_S:  # seeds are redrawn beside the images
            seeds = len(facts.by_seed_S)
            drawn_RS = rng.choice(facts.by_seed_S, (replicates, seeds))
            accuracy_RP[:, p] += drawn_RS.mean(axis=1) - np.mean(facts.by_seed_S)
    return Replicates(accuracy_RP, macs_RP)


def interval(values_RP: Doubles, level: float = 0.95) -> Interval:
    """Return the percentile interval of each column.

    Raises:
        ConfigError: the level is not between 0 and 1.
    """
    _check_level(level)
    tail = (1 - level) / 2
    low_P, high_P = np.quantile(values_RP, (tail, 1 - tail), axis=0)
    return Interval(low_P, high_P)


def accuracy_interval(evidence: Sequence[Evidence], level: float = 0.95) -> Interval:
    """Return Wilson's interval of each point's accuracy, which holds near 0 and 1, too.

    Of replicates it is of the mean, over images and seeds: the mean's error by Student's t is added
    in quadrature. Images of one source count for as many as their spread between sources amounts
    to: no fewer than there are sources, no more than there are images.

    Raises:
        ConfigError: the level is not between 0 and 1.
    """
    _check_level(level)
    z = float(norm.ppf((1 + level) / 2))
    share_P = np.array([facts.correct_N.mean() for facts in evidence])
    count_P = np.array([_effective_count(facts) for facts in evidence])
    middle_P = (share_P + z**2 / (2 * count_P)) / (1 + z**2 / count_P)
    half_P = np.sqrt(share_P * (1 - share_P) / count_P + (z / (2 * count_P)) ** 2)
    half_P *= z / (1 + z**2 / count_P)
    half_P = np.hypot(half_P, [_error_of_seeds(facts, level) for facts in evidence])
    return Interval(np.maximum(middle_P - half_P, 0.0), np.minimum(middle_P + half_P, 1.0))


def _error_of_seeds(facts: Evidence, level: float) -> float:
    """Return half an interval of the mean over seeds, 0 where there is one."""
    seeds = len(facts.by_seed_S)
    if seeds < 2:
        return 0.0
    deviation = float(np.std(facts.by_seed_S, ddof=1))
    return float(student.ppf((1 + level) / 2, seeds - 1) * deviation / np.sqrt(seeds))


def _effective_count(facts: Evidence) -> float:
    """Return how many independent images would tell as much of the accuracy."""
    images = len(facts.correct_N)
    _, source_N = np.unique(facts.sources_N, return_inverse=True)
    share = facts.correct_N.mean()
    excess_S = np.bincount(source_N, weights=facts.correct_N - share)
    variance = (excess_S**2).sum() / images**2
    if variance == 0:
        return float(len(excess_S))
    return float(np.clip(share * (1 - share) / variance, len(excess_S), images))


def probability_on_front(replicates: Replicates) -> Doubles:
    """Return per point the share of redraws in which no other point beats it."""
    losses_RP2 = np.stack([1 - replicates.accuracy_RP, replicates.macs_RP], axis=-1)
    masks_RP = np.stack([pareto_mask(losses_P2) for losses_P2 in losses_RP2])
    return np.asarray(masks_RP.mean(axis=0), dtype=np.float64)


def attained_band(accuracy_F: Interval) -> Interval:
    """Return the interval of the accuracy that a budget buys, at each of F points of a front.

    A budget buys the best of all the points that it affords, hence running maxima.

    Args:
        accuracy_F: intervals of the front's points, in ascending order of cost.
    """
    return Interval(*(np.maximum.accumulate(ends_F) for ends_F in accuracy_F))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"`0 < level < 1` must hold, but got {level}.")

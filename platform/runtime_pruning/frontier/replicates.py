"""Replicates: points of one configuration under several seeds are one claim, their mean.

What is chosen, drawn and told is the mean: a seed that was lucky is on no front for it, and the
best of several is never a claim. Replicates of a sweep have their configuration in common, ``seed``
left out, and which of its trial's points they are.

Dimensions: N images, S seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from runtime_pruning.frontier.points import Figures, OperatingPoint, canonical_json
from runtime_pruning.frontier.uncertainty import Evidence

T = TypeVar("T")


class Pooled(NamedTuple):
    """What several replicates are together; one alone is itself.

    Attributes:
        point: that of the lowest seed, with the mean of all figures.
        ids: of the points that it is made of, by seed.
    """

    point: OperatingPoint
    ids: tuple[str, ...]


def pool(points: Iterable[OperatingPoint]) -> list[Pooled]:
    """Return replicates as one point each, in the order in which their first ones came."""
    groups: dict[str, dict[int, OperatingPoint]] = {}
    for point in points:
        groups.setdefault(_claim(point), {})[point.seed] = point
    return [_together([group[seed] for seed in sorted(group)]) for group in groups.values()]


def pool_evidence(evidence: Sequence[Evidence]) -> Evidence:
    """Return the evidence of replicates together: per image the mean, per seed the accuracy."""
    if len(evidence) == 1:
        return evidence[0]
    return evidence[0]._replace(
        correct_N=np.mean([each.correct_N for each in evidence], axis=0),
        executed_macs_N=np.mean([each.executed_macs_N for each in evidence], axis=0),
        by_seed_S=tuple(float(each.correct_N.mean()) for each in evidence),
    )


def first_known(pooled: Iterable[Pooled], known: Mapping[str, T]) -> dict[str, T]:
    """Return, by the id of what replicates are together, what is known of the first of them."""
    return {
        each.point.point_id: known[id_] for each in pooled for id_ in each.ids[::-1] if id_ in known
    }


def _claim(point: OperatingPoint) -> str:
    """Return what replicates have in common, and no other points."""
    config = {name: value for name, value in point.config.items() if name != "seed"}
    return canonical_json([point.sweep_id, point.split, config, point.index])


def _together(points: Sequence[OperatingPoint]) -> Pooled:
    """Return replicates, ascending by seed, as one point."""
    ids = tuple(point.point_id for point in points)
    if len(points) == 1:
        return Pooled(points[0], ids)
    seeds = tuple(point.seed for point in points)
    figures = _mean([point.figures for point in points])
    return Pooled(replace(points[0], figures=figures, seeds=seeds), ids)


def _mean(figures: Sequence[Figures]) -> Figures:
    """Return the mean of all figures; None where one has none."""
    facts = [asdict(each) for each in figures]
    means: dict[str, Any] = {
        name: None if any(each[name] is None for each in facts) else _plain_mean(facts, name)
        for name in facts[0]
    }
    return Figures(**{**means, "images": figures[0].images})


def _plain_mean(facts: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([each[name] for each in facts]))

"""Choosing an operating point: constraints in, the best point out, or a clear no.

The rule is the same here and in the page (``assets/choose.js``), operation by operation, so that
both give the same answer from the same numbers:

- a point is *feasible* if it breaks no constraint; one that was not timed on the device that a
  constraint names breaks it;
- *best* is the most accurate feasible point if its cost is bounded, else the cheapest; ties fall to
  the other of the two, then to the smaller id;
- a *miss* is how far a value lies beyond its limit, as a share of the limit (of accuracy where the
  limit is a loss); the *nearest miss* has the smallest largest miss, then the smallest sum.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, NamedTuple, get_args

from runtime_pruning.errors import ConfigError

Preference = Literal["accuracy", "cost"]
BARRED, CLOSE_BEHIND = 3, 2  # runners-up that are shown: better and infeasible, feasible and worse


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a choice rests on.

    Attributes:
        accuracy: in [0, 1], on validation.
        macs_fraction: executed MACs over the dense backbone's.
        class_loss: of the class that loses most against the dense network; None where that was not
            measured.
        latency_ms: by ``<device>.<batch>.<quantile>``.
    """

    point_id: str
    method: str
    backbone: str
    accuracy: float
    macs_fraction: float
    class_loss: float | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a point must keep to; None asks nothing.

    Attributes:
        min_accuracy: in [0, 1].
        max_macs_fraction: of the dense network's MACs.
        max_class_loss: of any class's accuracy against the dense network, in [0, 1].
        device: whose milliseconds count; with one, they are the cost in place of MACs.
        batch: images per call that the milliseconds are of.
        max_p50_ms, max_p95_ms: per call.
        method, backbone: registered names.
        prefer: what makes a feasible point the best; by default accuracy if cost is bounded, else
            cost.

    Raises:
        ConfigError: a limit out of its range, or milliseconds of no device.
    """

    min_accuracy: float | None = None
    max_macs_fraction: float | None = None
    max_class_loss: float | None = None
    device: str | None = None
    batch: int = 1
    max_p50_ms: float | None = None
    max_p95_ms: float | None = None
    method: str | None = None
    backbone: str | None = None
    prefer: Preference | None = None

    def __post_init__(self) -> None:
        for name in ("min_accuracy", "max_class_loss"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"`0 <= {name} <= 1` must hold, but got {value}.")
        for name in ("max_macs_fraction", "max_p50_ms", "max_p95_ms"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"`{name} > 0` must hold, but got {value}.")
        if self.prefer not in (None, *get_args(Preference)):
            raise ConfigError(
                f"`prefer` must be one of {get_args(Preference)}, but got {self.prefer!r}."
            )
        if self.batch < 1:
            raise ConfigError(f"`batch >= 1` must hold, but got {self.batch}.")
        if self.device is None and (self.max_p50_ms or self.max_p95_ms):
            raise ConfigError("Milliseconds are of a device: name it beside the limit.")

    @property
    def preference(self) -> Preference:
        """What makes a feasible point the best."""
        bounds = (self.max_macs_fraction, self.max_p50_ms, self.max_p95_ms)
        bounded = any(bound is not None for bound in bounds)
        return self.prefer or ("accuracy" if bounded else "cost")

    @property
    def cost_key(self) -> str | None:
        """Which milliseconds are the cost; None: MACs are."""
        if self.device is None:
            return None
        return f"{self.device}.{self.batch}.{'p50' if self.max_p95_ms is None else 'p95'}"


class Failure(NamedTuple):
    """One constraint that a point breaks.

    Attributes:
        constraint: its name in :class:`Constraints`.
        value: of the point; None where it was not measured.
        limit: what was asked for.
        miss: how far beyond; infinite where a value is missing or is another name.
    """

    constraint: str
    value: float | str | None
    limit: float | str
    miss: float


class Judged(NamedTuple):
    """A point with the constraints that it breaks."""

    candidate: Candidate
    failures: tuple[Failure, ...]

    @property
    def miss(self) -> tuple[float, float]:
        """The largest miss, and the sum of all."""
        misses = [failure.miss for failure in self.failures]
        # Not `sum`, which newer Pythons compensate: the page adds one by one.
        return max(misses, default=0.0), reduce(operator.add, misses, 0.0)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The answer.

    Attributes:
        constraints: what was asked for.
        best: the best feasible point; None if there is none.
        runners_up: up to `BARRED` points that would be better and break a constraint, the nearest
            miss first, then up to `CLOSE_BEHIND` feasible ones that are next best.
        nearest_miss: where nothing is feasible, the point that misses least; None if every point
            is of another method or backbone, or was not measured as asked for.
        feasible: how many points break nothing.
    """

    constraints: Constraints
    best: Candidate | None
    runners_up: tuple[Judged, ...]
    nearest_miss: Judged | None
    feasible: int


def choose(candidates: Sequence[Candidate], constraints: Constraints) -> Choice:
    """Return the best point under constraints, or the nearest miss; the order given is nothing."""
    ranked = sorted(candidates, key=lambda c: _rank(c, constraints))
    judged = [Judged(each, _failures(each, constraints)) for each in ranked]
    feasible = [p for p, each in enumerate(judged) if not each.failures]
    if not feasible:
        missed = [each for each in _by_miss(judged) if math.isfinite(each.miss[0])]
        nearest = missed[0] if missed else None
        rest = tuple(missed[1 : 1 + BARRED])
        return Choice(
            constraints=constraints, best=None, runners_up=rest, nearest_miss=nearest, feasible=0
        )
    first = feasible[0]
    close = [judged[p] for p in feasible[1 : 1 + CLOSE_BEHIND]]
    return Choice(
        constraints=constraints,
        best=judged[first].candidate,
        runners_up=(*_by_miss(judged[:first])[:BARRED], *close),
        nearest_miss=None,
        feasible=len(feasible),
    )


def _rank(candidate: Candidate, constraints: Constraints) -> tuple[float, float, str]:
    """Return what sorts the best point first."""
    key = constraints.cost_key
    cost = candidate.macs_fraction if key is None else candidate.latency_ms.get(key, math.inf)
    pair = (-candidate.accuracy, cost)
    if constraints.preference == "cost":
        pair = pair[::-1]
    return (*pair, candidate.point_id)


def _by_miss(judged: Sequence[Judged]) -> list[Judged]:
    """Return points by how far they miss; of equal misses the better-ranked is first."""
    return sorted(judged, key=lambda each: each.miss)


def _failures(candidate: Candidate, asked: Constraints) -> tuple[Failure, ...]:
    """Return the constraints that a point breaks, in the order of their fields."""
    found = []
    if (low := asked.min_accuracy) is not None and candidate.accuracy < low:
        miss = (low - candidate.accuracy) / low
        found.append(Failure("min_accuracy", candidate.accuracy, low, miss))
    above = {
        "max_macs_fraction": candidate.macs_fraction,
        "max_class_loss": candidate.class_loss,
        "max_p50_ms": candidate.latency_ms.get(f"{asked.device}.{asked.batch}.p50"),
        "max_p95_ms": candidate.latency_ms.get(f"{asked.device}.{asked.batch}.p95"),
    }
    for name, value in above.items():
        limit = getattr(asked, name)
        if limit is None or (value is not None and value <= limit):
            continue
        scale = 1.0 if name == "max_class_loss" else limit
        miss = math.inf if value is None else (value - limit) / scale
        found.append(Failure(name, value, limit, miss))
    for name in ("method", "backbone"):
        wanted, own = getattr(asked, name), getattr(candidate, name)
        if wanted is not None and own != wanted:
            found.append(Failure(name, own, wanted, math.inf))
    return tuple(found)

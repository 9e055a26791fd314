"""Optuna's search over two objectives or three, as Ray Tune asks for it.

Where there are several seeds, each configuration is suggested once per seed, one after the other,
and Optuna hears of the mean.

The study lives in memory and travels in Tune's own snapshot, which makes a resumed sweep suggest
exactly what an uninterrupted one would have. Two things the stock `OptunaSearch` does not do: it
shows Optuna only a trial's last operating point, and it leaves a trial whose metric is not finite
running for ever, which repels the sampler from its place.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.sweeping.config import Dimension, Range, SweepConfig
from runtime_pruning.sweeping.objectives import directions, values_of


def search_space(search: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's form of a sweep's dimensions."""
    return {name: _distribution(dimension) for name, dimension in search.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Range):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.scale == "log")
    return CategoricalDistribution([_plain(value) for value in dimension])


def _plain(value: float | str) -> float | str:
    """Return whole numbers as such."""
    return value if isinstance(value, str) or value != int(value) else int(value)


def opening_points(sweep: SweepConfig) -> list[dict[str, float | str]]:
    """Return the first trial of each group count: the middle of every other dimension.

    A short sweep left to chance may never try one of its group counts.
    """
    middle = {name: _middle(dimension) for name, dimension in sweep.search.items()}
    return [{**middle, "groups": groups} for groups in sweep.group_counts]


def _middle(dimension: Dimension) -> float | str:
    if isinstance(dimension, tuple):
        return _plain(dimension[len(dimension) // 2])
    if dimension.scale == "log":
        return math.sqrt(dimension.low * dimension.high)
    return (dimension.low + dimension.high) / 2


class FrontierSearch(OptunaSearch):  # type: ignore[misc]
    """`OptunaSearch` that learns from every operating point of a trial.

    Args:
        sweep: what is searched.
        known: the swept method's points so far, where a sweep is extended; nothing is learned from
            them where a latency is an objective, which they do not hold.
    """

    def __init__(self, sweep: SweepConfig, known: Sequence[OperatingPoint] = ()) -> None:
        space = search_space(sweep.search)
        wanted = directions(sweep)
        super().__init__(
            space=space,
            metric=list(wanted),
            mode=list(wanted.values()),
            points_to_evaluate=None if known else opening_points(sweep)[: sweep.trials],
            sampler=optuna.samplers.TPESampler(
                seed=sweep.seed + len(known), n_startup_trials=min(10, max(2, sweep.trials // 2))
            ),
        )
        self._objectives = list(wanted)
        # Objective values by trial and point index: a point reported twice counts once.
        self._points: dict[str, dict[int, list[float]]] = {}
        self._seeds = [{"seed": seed} for seed in sweep.seeds] or [{}]
        self._leader: dict[str, str] = {}  # by trial: the first that had its configuration
        self._waiting: list[tuple[str, dict[str, Any]]] = []  # leader and parameters, a seed each
        self._most_live: int | None = None
        for point in known:
            values = values_of(point, wanted)
            if values is not None:
                self._tell({name: point.config[name] for name in space}, values)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take over from Tune's limiter, whose snapshot would bring an earlier limit back."""
        self._most_live = max_concurrent
        return True

    def restore(self, checkpoint_path: str) -> None:
        """Take in a snapshot, but for the limit, which is that of this start."""
        limit = self._most_live
        super().restore(checkpoint_path)
        self._most_live = limit

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next configuration; None while as many trials live as may."""
        live = len(self._leader) - len(self._completed_trials)
        if self._most_live is not None and live >= self._most_live:
            return None
        if not self._waiting:
            suggested: dict[str, Any] | None = super().suggest(trial_id)
            if suggested is None:
                return None
            self._waiting = [(trial_id, {**suggested, **seed}) for seed in self._seeds]
        self._leader[trial_id], params = self._waiting.pop(0)
        return params

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep a point until its trial ends: Optuna takes no intermediate multi-objectives."""
        values = [float(result[name]) for name in self._objectives]
        if all(math.isfinite(value) for value in values):
            self._points.setdefault(trial_id, {})[int(result["point"])] = values

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna the trial's last point as its own, the others as trials beside it.

        Of replicates it is told once the last has ended: the means of the points that all have.
        """
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        leader = self._leader[trial_id]
        replicates = [each for each, first in self._leader.items() if first == leader]
        if len(replicates) < len(self._seeds) or not self._completed_trials.issuperset(replicates):
            return
        found = [points for each in replicates if (points := self._points.pop(each, {}))]
        shared = set.intersection(*map(set, found)) if found else set()
        points = {
            index: np.mean([each[index] for each in found], axis=0).tolist() for index in shared
        }
        asked = self._ot_trials[leader]
        if not points:
            self._ot_study.tell(asked, state=TrialState.FAIL)
            return
        *others, last = sorted(points)
        self._ot_study.tell(asked, points[last])
        for index in others:
            self._tell(asked.params, points[index])

    def _tell(self, params: dict[str, Any], values: list[float]) -> None:
        """Let Optuna know of a point that it did not ask for."""
        self._ot_study.add_trial(
            create_trial(params=params, distributions=self._space, values=values)
        )

"""Trials that fall behind on both objectives are stopped, so that others get their effort.

Successive halving for frontiers, after MOASHA (Schmucker et al. 2021, arXiv:2106.12639): at rungs
of training effort, ``first * factor^k``, a trial goes on only if it is among the better share of
those that have come as far. Better is by non-dominated rank, and within a rank by how far a point
lies from those before it, so that the whole width of the frontier is kept. It is asynchronous: a
trial is held against those that were there before it, and never waits.

Dimensions: P points, K objectives, all minimised.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from runtime_pruning.frontier.dominance import Doubles, pareto_mask
from runtime_pruning.glossary import ACCURACY, MACS_FRACTION
from runtime_pruning.sweeping.callback import listener_of
from runtime_pruning.sweeping.config import EarlyStopping
from runtime_pruning.sweeping.reports import ENDED, STAGE_ENDED, Stop

_WORST = 1e9  # what a loss counts as that is no number


class Rungs:
    """What trials had reached when they came to each rung.

    Args:
        settings: where rungs are, and who goes on.
    """

    def __init__(self, settings: EarlyStopping) -> None:
        self._settings = settings
        self._stages: dict[str, list[tuple[float, float]]] = {}
        # Losses of each trial's points, by rung.
        self._reached: dict[int, dict[str, list[tuple[float, float]]]] = {}

    def add(
        self, trial: str, effort: float, losses: tuple[float, float], *, stage_ended: bool
    ) -> Stop | None:
        """Take in a trial's point; return why it stops, or None if it goes on.

        Args:
            trial: its id.
            effort: that it has spent, the same for all points of a stage.
            losses: error rate and share of the dense MACs.
            stage_ended: whether more training comes next.
        """
        stage = self._stages.setdefault(trial, [])
        stage.append(losses)
        if not stage_ended:
            return None
        del self._stages[trial]
        rung = self.rung_of(effort)
        if rung is None or trial in self._reached.get(rung, {}):
            return None
        reached = self._reached.setdefault(rung, {})
        reached[trial] = stage
        place = in_order(reached).index(trial) + 1
        kept = max(1, math.ceil(self._settings.keep * len(reached)))
        return Stop(rung, effort, place, len(reached), kept) if place > kept else None

    def rung_of(self, effort: float) -> int | None:
        """Return the highest rung that an effort reaches; None below the first."""
        first, factor = self._settings.first, self._settings.factor
        if effort < first:
            return None
        # A hair above, for efforts that are rungs themselves.
        return math.floor(math.log(effort / first * (1 + 1e-9), factor))


def in_order(reached: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Return trials by their best points, the best first."""
    owners = [trial for trial, points in reached.items() for _ in points]
    losses_PK = np.array([losses for points in reached.values() for losses in points])
    return list(dict.fromkeys(owners[p] for p in priority(losses_PK)))


def priority(losses_PK: npt.ArrayLike) -> list[int]:
    """Return the indices of points, the most useful first.

    Fronts are peeled off one by one. Within one, the point of the least error comes first, and then
    always the one that is farthest from those already taken (an epsilon net), every objective
    scaled to [0, 1] over all points.
    """
    losses = np.asarray(losses_PK, dtype=np.float64)
    losses = np.where(np.isfinite(losses).all(axis=1, keepdims=True), losses, _WORST)
    spans_K = np.ptp(losses, axis=0)
    scaled_PK: Doubles = (losses - losses.min(axis=0)) / np.where(spans_K > 0, spans_K, 1)
    left, ordered = np.arange(len(losses)), list[int]()
    while len(left):
        front = left[pareto_mask(losses[left])]
        ordered += _spread_out(front, scaled_PK)
        left = np.setdiff1d(left, front)
    return ordered


def _spread_out(front: npt.NDArray[np.int64], scaled_PK: Doubles) -> list[int]:
    """Return a front's points, each as far as can be from all before it."""
    first = front[np.lexsort((scaled_PK[front, 1], scaled_PK[front, 0]))[0]]
    taken, nearest_F = [int(first)], np.full(len(front), np.inf)
    while len(taken) < len(front):
        from_last = np.linalg.norm(scaled_PK[front] - scaled_PK[taken[-1]], axis=1)
        nearest_F = np.minimum(nearest_F, from_last)
        nearest_F[np.isin(front, taken)] = -1.0
        taken.append(int(front[int(nearest_F.argmax())]))
    return taken


class FrontierRungs(FIFOScheduler):  # type: ignore[misc]
    """Tune's scheduler by `Rungs`; the sweep's listener hears of each stop.

    Args:
        settings: where rungs are, and who goes on.
        sweep_id: the listener's.
        known: what trials have reported before this start.
    """

    def __init__(
        self,
        settings: EarlyStopping,
        sweep_id: str,
        known: Iterable[tuple[str, dict[str, Any]]] = (),
    ) -> None:
        super().__init__()
        self._settings, self._sweep_id, self._rungs = settings, sweep_id, Rungs(settings)
        for trial, result in known:
            self._take(trial, result)

    def on_trial_result(
        self, tune_controller: Any, trial: Trial, result: dict[str, Any]
    ) -> Literal["CONTINUE", "STOP"]:
        """Stop a trial that is not among the better ones of its rung."""
        stop = self._take(trial.trial_id, result)
        if stop is None:
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        listener_of(self._sweep_id).on_stop(trial.config, stop)
        return TrialScheduler.STOP  # type: ignore[no-any-return]

    def _take(self, trial: str, result: dict[str, Any]) -> Stop | None:
        if STAGE_ENDED not in result or result.get(ENDED):
            return None
        losses = (1.0 - result[ACCURACY.name], result[MACS_FRACTION.name])
        effort = float(result[self._settings.effort])
        return self._rungs.add(trial, effort, losses, stage_ended=result[STAGE_ENDED])

"""Predicted against measured: how well a latency table foretells what plans take.

Dimensions: P plans.
"""

import math
import random
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor

from runtime_pruning.cost.calibration import Timings, images_for, waiting_for
from runtime_pruning.cost.latency import LatencyTable
from runtime_pruning.cost.timed_units import Plan, TimedNetwork
from runtime_pruning.errors import ConfigError


@dataclass(frozen=True)
class PredictionError:
    """How well a table predicts executions that it was not made from.

    Attributes:
        mape: mean absolute error of the predicted milliseconds, as a share of the measured ones.
            The machine's drift since calibration is part of it.
        mape_of_dense: the same of times over the dense one's, which was measured between: what an
            agent's penalty rests on.
        kendall_tau: rank correlation, in [-1, 1].
        predicted_ms: per plan, of a whole batch.
        measured_ms: per plan, of a whole batch.
    """

    mape: float
    mape_of_dense: float
    kendall_tau: float
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.measured_ms)} unseen plans, {min(self.measured_ms):.3f} to "
            f"{max(self.measured_ms):.3f} ms: MAPE {self.mape:.1%} ({self.mape_of_dense:.1%} of "
            f"times over the dense one's), Kendall's tau {self.kendall_tau:.2f}"
        )


@torch.inference_mode()
def predicted_against_measured(
    table: LatencyTable,
    timed: TimedNetwork,
    *,
    plans: int = 20,
    rounds: int = 7,
    batch: int = 1,
    seed: int = 1,
) -> PredictionError:
    """Run random plans on the whole network, and hold the table's prices against their times.

    Args:
        table: of the timed network on this device.
        timed: executes the network.
        plans: how many, at least 2, drawn from narrow to wide.
        rounds: each runs all plans once, in an order of its own; one more goes before.
        batch: images, all on the same plan.
        seed: of plans, images and orders.
    """
    if plans < 2 or rounds < 1:
        raise ConfigError(f"`plans >= 2` and `rounds >= 1` must hold, got {plans} and {rounds}.")
    network, rng = timed.network, random.Random(seed)
    images_BCHW = images_for(network, batch, seed)
    drawn = _random_plans(len(network.sites), network.groups, plans, rng)
    dense = network.uniform(network.groups)
    timings = _time_plans(timed, images_BCHW, dense, drawn, rounds, rng)
    measured_P = np.array([timings.median_ms(plan) for plan in drawn])
    channels_QL = network.channels(torch.tensor([dense, *drawn]))
    dense_ms, *predicted = (table.price(channels_QL, batch=batch) * batch).tolist()
    predicted_P = np.array(predicted)
    return PredictionError(
        mape=_mape(predicted_P, measured_P),
        mape_of_dense=_mape(predicted_P / dense_ms, measured_P / timings.yardstick_ms),
        kendall_tau=_rank_correlation(predicted_P, measured_P),
        predicted_ms=tuple(predicted_P.tolist()),
        measured_ms=tuple(measured_P.tolist()),
    )


def _time_plans(
    timed: TimedNetwork,
    images_BCHW: Tensor,
    dense: Plan,
    plans: list[Plan],
    rounds: int,
    rng: random.Random,
) -> Timings:
    """Time plans in orders of their own, the dense one before each."""
    yardstick = partial(timed.run, images_BCHW, dense)
    wait = waiting_for(timed.network)
    timings = Timings(yardstick, wait)
    for kept in (Timings(yardstick, wait), *[timings] * rounds):
        for plan in rng.sample(plans, len(plans)):
            kept.visit()
            kept.measure_yardstick()
            kept.time(plan, partial(timed.run, images_BCHW, plan))
            kept.measure_yardstick()
    return timings


def _mape(predicted_P: NDArray[np.float64], measured_P: NDArray[np.float64]) -> float:
    """Return the mean absolute error as a share of what was measured."""
    return float(np.mean(np.abs(predicted_P - measured_P) / measured_P))


def _random_plans(sites: int, groups: int, plans: int, rng: random.Random) -> list[Plan]:
    """Return plans whose mean widths spread from narrow to wide."""
    drawn = []
    for index in range(plans):
        wide = index / (plans - 1)  # chance of more than half of the groups
        half = max(1, groups // 2)
        halves = (1, half), (min(half + 1, groups), groups)
        drawn.append(tuple(rng.randint(*halves[rng.random() < wide]) for _ in range(sites)))
    return drawn


def _rank_correlation(one_P: NDArray[np.float64], other_P: NDArray[np.float64]) -> float:
    """Return Kendall's tau-b; 0 where one side is all ties."""
    tau = float(kendalltau(one_P, other_P).statistic)
    return 0.0 if math.isnan(tau) else tau

"""What early stopping saves at equal hypervolume, on simulated learning curves.

    python tests/benchmarks/early_stopping.py --sweeps 50

No network is trained. A simulated trial has a penalty and a skill (how good its settings are); its
error falls towards its own floor, exponentially in rounds of training, and its cost towards its own
share of the dense MACs, with noise on each reading. Every decision is the sweep's own
(`sweeping.early_stopping.Rungs`). So many trials run at once as on a cluster. Effort is rounds of
training; hypervolume is that of all points that were read.

A sweep without stopping spends its rounds on trials that all run to their end; with stopping, on
the same trials in the same order and, for what it saves, on further ones. What is told is the share
of the rounds after which the second has the hypervolume that the first ends with.
"""

import argparse
import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from runtime_pruning.frontier.dominance import hypervolume
from runtime_pruning.sweeping.config import EarlyStopping
from runtime_pruning.sweeping.early_stopping import Rungs

ROUNDS = 8
REFERENCE = (1.0, 1.1)


class Reading(NamedTuple):
    """A point: the round it was read in, error rate, share of the dense MACs."""

    rounds: int
    error: float
    cost: float


def curve(rng: np.random.Generator) -> list[Reading]:
    """Return what one trial reads after each of its rounds."""
    budget = rng.uniform(0.2, 0.9)  # the cost that its penalty leads to
    floor = 0.04 + 0.25 * np.exp(-5 * budget) + rng.exponential(0.04)  # skill: 0 is the front
    speed, gap = rng.uniform(0.8, 2.5), rng.uniform(0.1, 0.5)
    readings = []
    for done in range(1, ROUNDS + 1):
        left = np.exp(-done / speed)
        error = floor + gap * left + rng.normal(0, 0.005)
        cost = budget + (0.5 - budget) * left + rng.normal(0, 0.01)
        readings.append(Reading(done, float(np.clip(error, 0.01, 1)), float(np.clip(cost, 0, 1))))
    return readings


def run(
    curves: Iterator[list[Reading]], settings: EarlyStopping | None, at_once: int, rounds: int
) -> tuple[int, list[float]]:
    """Run trials until so many rounds are spent; return trials begun, and hypervolume per round."""
    rungs = None if settings is None else Rungs(settings)
    live: dict[int, list[Reading]] = {}
    begun, spent, points, covered = 0, 0, list[tuple[float, float]](), list[float]()
    while spent < rounds:
        while len(live) < at_once:
            live[begun] = next(curves)
            begun += 1
        for name in list(live):
            reading = live[name].pop(0)
            spent += 1
            losses = (reading.error, reading.cost)
            points.append(losses)
            covered.append(hypervolume(np.array(points), np.array(REFERENCE)))
            stop = rungs and rungs.add(str(name), reading.rounds, losses, stage_ended=True)
            if stop or not live[name]:
                del live[name]
    return begun, covered


def endless(seed: int) -> Iterator[list[Reading]]:
    """Yield trial after trial."""
    rng = np.random.default_rng(seed)
    while True:
        yield curve(rng)


def compare(seed: int, settings: EarlyStopping, trials: int, at_once: int) -> dict[str, float]:
    """Return what one sweep's trials cost and reach, with and without stopping."""
    rounds = trials * ROUNDS
    _, whole = run(endless(seed), None, at_once, rounds)
    begun, stopped = run(endless(seed), settings, at_once, rounds)
    equal = next((spent for spent, found in enumerate(stopped, 1) if found >= whole[-1]), None)
    return {
        "seed": seed,
        "hypervolume": whole[-1],
        "hypervolume_stopped": stopped[-1],
        "trials_stopped": begun,
        "effort_at_equal_hypervolume": float("nan") if equal is None else equal / rounds,
    }


def main() -> None:
    """Print a row per share that goes on, as JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=50, help="seeds")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for keep in arguments.keep:
        settings = EarlyStopping(first=1, factor=2, keep=keep)
        found = [
            compare(seed, settings, arguments.trials, arguments.at_once)
            for seed in range(arguments.sweeps)
        ]
        effort = np.array([each["effort_at_equal_hypervolume"] for each in found])
        reached = effort[np.isfinite(effort)]
        gains = [each["hypervolume_stopped"] - each["hypervolume"] for each in found]
        rows.append(
            {
                "keep": keep,
                "sweeps": len(found),
                "trials": arguments.trials,
                "trials_with_stopping": float(np.mean([each["trials_stopped"] for each in found])),
                "hypervolume": float(np.mean([each["hypervolume"] for each in found])),
                "gain_at_equal_effort": float(np.mean(gains)),
                "sweeps_not_worse": int(sum(gain >= 0 for gain in gains)),
                "reached": len(reached),
                "effort_at_equal_hypervolume": {
                    "median": float(np.median(reached)),
                    "low": float(np.quantile(reached, 0.1)),
                    "high": float(np.quantile(reached, 0.9)),
                },
            }
        )
    print(json.dumps(rows, indent=2) if arguments.json else "\n".join(map(str, rows)))


if __name__ == "__main__":
    main()

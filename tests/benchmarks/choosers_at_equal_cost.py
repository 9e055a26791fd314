"""Choosers of cascades against thresholds at the same cost, on the answers of published ResNets.

Run:     python tests/benchmarks/choosers_at_equal_cost.py --records DIR [--dqn] [--reward R]
         [--env-steps N] [--seeds 0 1 2]
Expect:  docs/lab/choosers-at-equal-cost.md. Records as published_cascade.py makes them in DIR.

Everything is fitted on half of the test images and judged on the other, both ways round. The
control at a chooser's mean cost is the mixture of the two thresholds next to it in cost there, of
those that no other beats where all were fitted: its expectation, image by image, so that the
difference is paired. Nothing is selected by accuracy.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from published_cascade import MEMBERS, halves, record_path, show

from pruning_envs import CascadeTable
from runtime_pruning.agents.cascade_dqn import CascadeDQNSettings, train_cascade_dqn
from runtime_pruning.cascades import (
    Chooser,
    Outcome,
    QChooser,
    align,
    fit_combination,
    fit_regression,
    judge,
    search_thresholds,
)
from runtime_pruning.frontier.records import read_record

PENALTIES = np.geomspace(0.03, 1, 12)
Tables = tuple[CascadeTable, CascadeTable]  # to fit on, to judge on


def tables_of(folder: Path) -> list[Tables]:
    """Return the tables of both halves, answers summed at the members' temperatures."""
    answers = align([read_record(record_path(folder, each, "test")) for each in MEMBERS])
    reference = float(answers.macs_NM[:, -1].mean())
    found = []
    for half in halves(answers):
        made = fit_combination(half.fitted, "sum")
        found.append((made.table(half.fitted, reference), made.table(half.judged, reference)))
    return found


def control(thresholds: Sequence[Outcome], cost: float) -> npt.NDArray[np.float64]:
    """Return how probably each image is answered rightly at a mean cost."""
    ordered = sorted(thresholds, key=lambda outcome: outcome.cost)
    place = int(np.searchsorted([outcome.cost for outcome in ordered], cost))
    if place in (0, len(ordered)):
        return ordered[min(place, len(ordered) - 1)].correct_N.astype(np.float64)
    cheap, dear = ordered[place - 1], ordered[place]
    share = (cost - cheap.cost) / (dear.cost - cheap.cost)
    mixed_N: npt.NDArray[np.float64] = (1 - share) * cheap.correct_N + share * dear.correct_N
    return mixed_N


def compared(
    name: str, tables: Sequence[Tables], choosers: Sequence[Sequence[list[Chooser]]]
) -> None:
    """Print, per penalty, cost, accuracy and the paired gain with its interval.

    Args:
        name: of the chooser.
        tables: of the halves.
        choosers: by half and penalty; a list over seeds, of which the mean is judged.
    """
    known = [[judge(t, each) for each in search_thresholds(f, points=64)] for f, t in tables]
    for at, penalty in enumerate(PENALTIES):
        gains, costs, rights = [], [], []
        for half, (_, judged) in enumerate(tables):
            outcomes = [judge(judged, each) for each in choosers[half][at]]
            own = [outcome.correct_N - control(known[half], outcome.cost) for outcome in outcomes]
            gains.append(np.mean(own, axis=0))
            costs.append(np.mean([outcome.cost for outcome in outcomes]))
            rights.append(np.mean([outcome.accuracy for outcome in outcomes]))
        gain_N = 100 * np.concatenate(gains)
        error = 1.96 * gain_N.std() / np.sqrt(len(gain_N))
        figures = (np.mean(costs), 100 * np.mean(rights), gain_N.mean(), error)
        rounded = (round(float(x), d) for x, d in zip(figures, (3, 2, 2, 2), strict=True))
        show([name, round(float(penalty), 3), *rounded])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--dqn", action="store_true", help="train agents, too: minutes each")
    parser.add_argument("--reward", choices=["final", "gain"], default="gain")
    parser.add_argument("--env-steps", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    tables = tables_of(options.records)
    fitted = [[[fit_regression(f, float(p))] for p in PENALTIES] for f, _ in tables]
    compared("regression", tables, fitted)
    if not options.dqn:
        return
    agents: list[list[list[Chooser]]] = [[[] for _ in PENALTIES] for _ in tables]
    for seed in options.seeds:
        settings = CascadeDQNSettings(
            reward=options.reward, env_steps=options.env_steps, penalty_low=0.02, seed=seed
        )
        for half, (known, _) in enumerate(tables):
            network = train_cascade_dqn(known, settings)
            for at, penalty in enumerate(PENALTIES):
                agents[half][at].append(QChooser(network, float(penalty)))
        compared(f"dqn, {options.reward}, {len(agents[0][0])} seeds", tables, agents)


if __name__ == "__main__":
    main()

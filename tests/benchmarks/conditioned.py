"""One agent that is told the penalty, against an agent per penalty: hypervolume and steps.

Run:     python tests/benchmarks/conditioned.py --preset digits --episodes 12000 --seeds 0 1 2
Expect:  a line per seed: hypervolume of the conditioned agent over that of all others together,
         on the validation split, with the environment steps of each; then the dial's costs.

The backbone is the preset's prepared network, frozen: what differs is the agent alone. Each of the
others trains for ``--episodes`` images at its own penalty; the conditioned one trains for
``--share`` of what they take together, and is measured at the same penalties.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import ray
import torch

from pruning_envs import PenaltyRange
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.frontier.dominance import Reference, hypervolume
from runtime_pruning.methods import RNPConfig, Task
from runtime_pruning.methods.evaluation import evaluate
from runtime_pruning.methods.rnp import build_agent
from runtime_pruning.sweeping.checks import Material, check_sweep, method_config
from runtime_pruning.sweeping.prepare import prepare
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


class Losses(SimpleNamespace):
    """Error rate and share of the dense MACs of one agent at one penalty."""

    error: float
    fraction: float


def trained(task: Task, config: RNPConfig, episodes: int) -> tuple[object, float]:
    """Return an agent's decision network, trained on the frozen backbone, and the seconds."""
    started = time.monotonic()
    agent = build_agent(task, dataclasses.replace(config, episodes_per_round=episodes))
    agent.learn(episodes)
    network = agent.decision_network()
    agent.stop()
    return network, time.monotonic() - started


def losses(task: Task, network: object, penalty: float, dense_macs: float) -> Losses:
    """Measure an agent on the validation split."""
    split = task.data.validation
    found = evaluate(task.network, DecisionPolicy(network, penalty), split)
    return Losses(
        error=float((found.predictions_B != split.labels_N).mean()),
        fraction=float(found.executed_macs_B.mean()) / dense_macs,
    )


def covered(points: list[Losses]) -> float:
    """Return the hypervolume of points, from the declared corner."""
    return hypervolume([(p.error, p.fraction) for p in points], Reference().losses_K)


def compare(material: Material, task: Task, args: argparse.Namespace) -> None:
    """Train both, print a line, and the conditioned agent's dial."""
    penalties = np.geomspace(args.high, args.low, args.agents).tolist()
    base = method_config(material.sweep, material.method, {"penalty": 1.0})
    base = dataclasses.replace(base, rounds=1)
    dense = float(dense_macs(task.network))
    own, seconds = [], 0.0
    for penalty in penalties:
        network, spent = trained(task, dataclasses.replace(base, penalty=penalty), args.episodes)
        own.append(losses(task, network, penalty, dense))
        seconds += spent
    episodes = int(args.share * args.episodes * len(penalties))
    wide = dataclasses.replace(base, penalty=PenaltyRange(args.low, args.high))
    network, spent = trained(task, wide, episodes)
    dialled = [losses(task, network, penalty, dense) for penalty in penalties]
    steps = len(task.network.sites)
    print(
        f"seed {task.seed}: hypervolume {covered(dialled):.4f} / {covered(own):.4f} = "
        f"{covered(dialled) / covered(own):.4f}; steps {episodes * steps} / "
        f"{args.episodes * steps * len(penalties)}; seconds {spent:.0f} / {seconds:.0f}"
    )
    print("| penalty | own agent: accuracy, MACs | conditioned: accuracy, MACs |\n|---|---|---|")
    for penalty, one, other in zip(penalties, own, dialled, strict=True):
        cells = [f"{100 - 100 * p.error:.2f} % at {100 * p.fraction:.1f} %" for p in (one, other)]
        print(f"| {penalty:.3g} | {' | '.join(cells)} |")
    fractions = [point.fraction for point in dialled]
    print(f"cost rises as the penalty falls: {fractions == sorted(fractions)}\n", flush=True)


def main() -> None:
    """Print the comparison for each seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--episodes", type=int, default=12_000)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--low", type=float, default=0.05)
    parser.add_argument("--high", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    overrides = ["resources.env_runner.workers=0", *args.overrides]
    material = check_sweep(load_preset(args.preset, PRESETS, overrides))
    prepared = prepare(material, args.results / "prepared")
    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    for seed in args.seeds:
        network = prepared.network.regroup(args.groups, material.sweep.align).eval()
        task = Task(
            network=network,
            dense=prepared.dense,
            data=material.data,
            data_ref=ray.put(material.data),
            seed=seed,
        )
        compare(material, task, args)
    ray.shutdown()


if __name__ == "__main__":
    main()

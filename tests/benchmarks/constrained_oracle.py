"""PPO-Lagrangian on the problem whose optimum is known: does it hold its budget?

Usage: python tests/benchmarks/constrained_oracle.py [--updates 60] [--set lr=0.0003]
"""

import argparse

import ray
import torch
import yaml

from pruning_envs.network_oracle import OracleLayers
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import ConstrainedProblem

BUDGET = 0.5
SHOWN = 10  # lines


def main() -> None:
    """Train an agent, and print what its networks cost as it learns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in asked.set)
    chosen = {name: yaml.safe_load(text) for name, text in settings.items()}
    torch.set_num_threads(1)
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    layers = OracleLayers(sizes=(0.5, 0.5), needs=(0.2, 0.6))
    problem = ConstrainedProblem(
        network=layers, costs={"size": layers.size}, budgets={"size": BUDGET}
    )
    agent = algorithms.build_constrained(
        problem, algorithms.settings_of(chosen, ConstrainedProblem)
    )
    print("best shares and accuracy within the budget:", *layers.best(BUDGET))
    every = max(1, asked.updates // SHOWN)
    for update in range(1, asked.updates + 1):
        agent.learn(1)
        if update % every == 0:
            found = agent.roll_out(32)
            print(
                f"{update:3}  cost {found.cost_EK.mean():.3f} +- {found.cost_EK.std():.3f}  "
                f"accuracy {found.accuracy_E.mean():.3f}  removed {found.removed_ET.mean(0)}",
                flush=True,
            )
    agent.stop()


if __name__ == "__main__":
    main()

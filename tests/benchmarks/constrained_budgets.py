"""Constrained RL on digits: what budgets of three costs come to, five of each.

Usage: python tests/benchmarks/constrained_budgets.py [--episodes 400] [--output FILE.json]

Costs: MACs, measured milliseconds, and a function of this file that has no gradient.
"""

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.cost.whole import network_cost
from runtime_pruning.datasets import load
from runtime_pruning.methods import ConstrainedRL, ConstrainedRLConfig, Effort, Task
from runtime_pruning.methods.evaluation import evaluate
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train
from runtime_pruning.resources import AgentResources, EnvRunnerRequest

BUDGETS = (0.7, 0.5, 0.35, 0.25, 0.15)
SHAPE = (1, 8, 8)


def cache_lines(network: nn.Module) -> int:
    """Return the lines of 64 bytes that the weights of all layers fill: a user's own function."""
    return sum(-(-4 * weight.numel() // 64) for weight in network.parameters())


class Reported:
    """Keeps what a method reports."""

    def __init__(self) -> None:
        self.network: Any = None
        self.policy: Any = None
        self.effort = Effort()
        self.reason = ""

    def __call__(self, policy: Any, network: Any, effort: Effort, **_: Any) -> None:
        self.policy, self.network, self.effort = policy, network, effort

    def infeasible(self, reason: str) -> None:
        self.reason = reason


def trained(data: Any) -> PrunableNetwork:
    """Return digits-cnn, trained as the preset trains it."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=0)
    network = trace(backbone, SHAPE, groups=1)
    settings = TrainConfig(epochs=40, batch_size=64, lr=0.05, pad=1, flip=False, any_width=False)
    train(network, data.training, settings)
    return network.eval()


def run(
    dense: PrunableNetwork, data: Any, settings: dict[str, Any], workers: int
) -> dict[str, Any]:
    """Return one run's outcome."""
    config = ConstrainedRLConfig(**settings)
    task = Task(
        network=dense,
        dense=dense,
        data=data,
        data_ref=ray.put(data),
        seed=settings.get("seed", 0),
        pad=1,
        resources=AgentResources(env_runner=EnvRunnerRequest(workers=workers, cpus=0.5)),
    )
    reported, started = Reported(), time.monotonic()
    ConstrainedRL().fit(task, config, reported)  # type: ignore[arg-type]
    outcome = {"cost": config.cost, "budget": config.budget, "seconds": time.monotonic() - started}
    if reported.network is None:
        return {**outcome, "feasible": False, "reason": reported.reason}
    cost = network_cost(config.cost, dense.backbone, SHAPE)
    realised = cost(reported.network.backbone) / cost(dense.backbone)
    facts = evaluate(reported.network, reported.policy, data.validation)
    return {
        **outcome,
        "feasible": True,
        "realised": realised,
        "use": realised / config.budget,
        "accuracy": float((facts.predictions_B == data.validation.labels_N).mean()),
        "effort": asdict(reported.effort),
    }


def main() -> None:
    """Run all budgets of all costs, and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument(
        "--costs", nargs="+", default=["macs", "milliseconds", f"{NAME}:cache_lines"]
    )
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    data = load("digits")
    dense = trained(data)
    rows = []
    for budget in asked.budgets:
        for cost in asked.costs:
            settings = {
                "cost": cost,
                "budget": budget,
                "episodes": asked.episodes,
                "finetune_steps": (0,),
                "reward": {"images": 200, "calibration_images": 128},
                "agent": {"epochs": 5, "batch_episodes": 16},
                "finetune": {"epochs": 20, "batch_size": 64},
            }
            rows.append(run(dense, data, settings, asked.workers))
            print(rows[-1], flush=True)
            write(asked, rows)


def write(asked: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Write what is known so far."""
    facts = {
        "command": " ".join(["python", "tests/benchmarks/constrained_budgets.py", *sys.argv[1:]]),
        "hardware": f"{platform.processor() or platform.machine()}, 1 thread",
        "date": datetime.now(UTC).date().isoformat(),
        "seed": 0,
        "episodes": asked.episodes,
        "runs": rows,
    }
    if asked.output is not None:
        asked.output.write_text(json.dumps(facts, indent=1) + "\n")


NAME = Path(__file__).stem

if __name__ == "__main__":
    main()

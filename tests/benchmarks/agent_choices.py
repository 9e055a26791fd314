"""What each choice of deep Q-learning gains at equal environment steps: one factor at a time.

Run:     python tests/benchmarks/agent_choices.py digits|oracle [--seeds 4] [--episodes 6000]
             [--choices "n_step=all" ...] [--base lr=0.01 ...]
Expect:  a table: the return of greedy decisions on held-out images, the mean over penalties and
         seeds; its difference from the first line, paired by seed, with the standard error of
         that; CPU seconds.

Two problems: digits-cnn, trained for any width (3 sites; rewards from the policy split, scored on
validation images); and an oracle network of 12 sites that shows an image's class before the first
site alone, so that what to do at the last has to be remembered. One agent serves all penalties.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import ray
import torch
import yaml

from pruning_envs.oracle import OracleNetwork, oracle_images
from runtime_pruning import backbones, cost, datasets
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.methods.rnp import reward_scale
from runtime_pruning.network import order_channels, trace
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

LOCKSTEP = 100  # images per batch


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What an agent learns on, and what it is scored on.

    Attributes:
        network: runs stage by stage.
        images: rewards come from them.
        held_out: scores come from them; a multiple of `LOCKSTEP`.
        penalties: scored at each; drawn from between the ends in training.
    """

    network: Any
    images: Any
    held_out: Any
    penalties: tuple[float, ...]
    alpha: float = 1.0
    step_cost: Any = None

    @property
    def sites(self) -> int:
        return len(self.network.feature_widths)


def digits() -> Problem:
    """Return the digits backbone, trained for any width in a minute."""
    data = datasets.load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    network = trace(backbone, (1, 8, 8), groups=4, align=4)
    for any_width in (False, True):
        if any_width:
            order_channels(network)
            network.condition_batch_norm()
        config = TrainConfig(epochs=20, batch_size=64, lr=0.05, pad=1, any_width=any_width)
        train(network, data.training, config, progress=False)
    return Problem(
        network=network,
        images=data.policy,
        held_out=data.validation,
        penalties=(0.1, 0.3, 1.0, 3.0),
        alpha=reward_scale(network, data.policy, seed=0),
        step_cost=cost.get("macs")(network),
    )


def oracle() -> Problem:
    """Return a network of ten classes that need different groups at 12 sites."""
    generator = torch.Generator().manual_seed(0)
    needed_KL = torch.randint(1, 5, (10, 12), generator=generator)
    network = OracleNetwork(needed_KL, groups=4, loss_per_group=0.5, remind=False)
    images_NCHW, labels_N = oracle_images(10, 100)
    images = SimpleNamespace(images_NCHW=images_NCHW, labels_N=labels_N)
    return Problem(network=network, images=images, held_out=images, penalties=(0.05, 0.1, 0.2))


def choices(problem: Problem, episodes: int, base: dict[str, Any]) -> dict[str, DQNSettings]:
    """Return the settings as they are, then with one factor changed at a time.

    Args:
        problem: what is learned.
        episodes: of a whole training.
        base: settings that all of them share.
    """
    steps = episodes * problem.sites

    def explore(share: float) -> EpsilonSchedule:
        return EpsilonSchedule(steps=max(1, round(share * steps)))

    own = {"encoder": 32, "hidden": 32, "images_per_runner": LOCKSTEP, "warmup_episodes": 200}
    start = DQNSettings(**{**own, "epsilon": explore(0.5), **base})
    hard = {"tau": 1.0, "target_update_steps": 10 * LOCKSTEP * problem.sites}
    changes: dict[str, dict[str, Any]] = {
        "as set": {},
        "gamma=0.9": {"gamma": 0.9},
        "gamma=0.99": {"gamma": 0.99},
        "relabel=no": {"relabel": False},
        "n_step=3": {"n_step": 3},
        "n_step=3, relabel=no": {"n_step": 3, "relabel": False},
        "n_step=all": {"n_step": problem.sites},
        "n_step=all, relabel=no": {"n_step": problem.sites, "relabel": False},
        "encoder=hidden=8": {"encoder": 8, "hidden": 8},
        "encoder=hidden=64": {"encoder": 64, "hidden": 64},
        "cell=lstm": {"cell": "lstm"},
        "dueling": {"dueling": True},
        "double_q=no": {"double_q": False},
        "lr=3e-4": {"lr": 3e-4},
        "lr=3e-3": {"lr": 3e-3},
        "lr=1e-2": {"lr": 1e-2},
        "replay: none": {"replay_ratio": 1.0, "replay_episodes": LOCKSTEP},
        "replay_ratio=1": {"replay_ratio": 1.0},
        "replay_ratio=8": {"replay_ratio": 8.0},
        "batch_episodes=16": {"batch_episodes": 16},
        "batch_episodes=256": {"batch_episodes": 256},
        "tau=0.005": {"tau": 0.005},
        "tau=0.1": {"tau": 0.1},
        "target: hard, 10 rounds": hard,
        "loss=mse": {"loss": "mse"},
        "standardise=no": {"standardise": False},
        "epsilon over 0.1": {"epsilon": explore(0.1)},
        "epsilon over 0.9": {"epsilon": explore(0.9)},
    }
    return {name: replace(start, **change) for name, change in changes.items()}


def score(problem: Problem, settings: DQNSettings, episodes: int, seed: int) -> tuple[float, float]:
    """Train an agent; return its mean return on held-out images, and CPU seconds of training."""
    config = dqn_config(
        PruningProblem(
            network=problem.network,
            data=problem.images,
            penalty=(problem.penalties[0], problem.penalties[-1]),
            alpha=problem.alpha,
            step_cost=problem.step_cost,
            seed=seed,
        ),
        settings,
    )
    algorithm = build(config)
    started = time.process_time()
    for _ in range(episodes // LOCKSTEP):
        algorithm.train()
    seconds = time.process_time() - started
    env = algorithm.env_runner.lockstep_env
    returns = []
    for penalty in problem.penalties:
        env.set_images(problem.held_out.images_NCHW, problem.held_out.labels_N, shuffle=False)
        env.set_penalty(penalty)
        count = len(problem.held_out.labels_N)
        for batch in algorithm.env_runner.sample(num_episodes=count, explore=False):
            returns.append(float(batch.rewards_EL.sum(1).mean()))
    algorithm.stop()
    return statistics.mean(returns), seconds


def line(name: str, rows: Sequence[tuple[float, float]], base: Sequence[float]) -> str:
    """Return one line of the table."""
    gains = [found - other for (found, _), other in zip(rows, base, strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    found, seconds = (statistics.mean(column) for column in zip(*rows, strict=True))
    return f"{name:24} {found:8.4f} {statistics.mean(gains):+8.4f} +- {error:.4f} {seconds:8.1f}"


def main() -> None:
    """Train and score each choice with each seed; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    problems = {"digits": digits, "oracle": oracle}
    parser.add_argument("problem", choices=sorted(problems))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=6000)
    parser.add_argument("--choices", nargs="+", help="some lines of the table only")
    parser.add_argument("--base", nargs="+", default=[], help="settings of all, name=value")
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    problem = problems[options.problem]()
    base: list[float] = []
    print(f"{'':24} {'return':>8} {'difference':>18} {'CPU s':>10}")
    shared = {name: yaml.safe_load(value) for name, value in (b.split("=") for b in options.base)}
    for name, settings in choices(problem, options.episodes, shared).items():
        if base and options.choices and name not in options.choices:
            continue
        rows = [score(problem, settings, options.episodes, seed) for seed in range(options.seeds)]
        base = base or [found for found, _ in rows]
        print(line(name, rows, base), flush=True)


if __name__ == "__main__":
    main()

"""What it changes when an agent is rewarded on images that the backbone has memorised.

Run:     python tests/benchmarks/reward_images.py [--seeds 6] [--episodes 4000] [--images 250]
Expect:  per penalty and source of rewards: accuracy and MACs (of the dense backbone, without the
         decision network) on images that neither has seen, the mean over seeds; behind it the
         difference from rewards on unseen images, paired by seed, with its 95 % interval.

A digits-cnn learns some training images by heart, first at full width and then at any width, with
no augmentation. One agent serves all penalties. It is rewarded on as many images: those that the
backbone has learned (with the scale of the loss as there, then as on unseen images), or unseen
ones. All are measured on the training images that were left out and the validation images.
"""

import argparse
import logging
import statistics
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import scipy.stats
import torch

from runtime_pruning import backbones, cost, datasets
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.cost.macs import dense_macs, plan_macs
from runtime_pruning.datasets import to_float
from runtime_pruning.methods.rnp import reward_scale
from runtime_pruning.network import PrunableNetwork, order_channels, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import train

PENALTIES = (0.1, 0.3, 1.0, 3.0)
LOCKSTEP = 125


def overfitted(training: Any, seed: int, epochs: int) -> PrunableNetwork:
    """Return a digits backbone that has learned some images by heart, at any width."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=seed)
    network = trace(backbone, (1, 8, 8), groups=4, align=4)
    for any_width in (False, True):
        if any_width:
            order_channels(network)
            network.condition_batch_norm()
        config = TrainConfig(
            epochs=epochs, batch_size=50, lr=0.05, any_width=any_width, seed=seed, weight_decay=0.0
        )
        train(network, training, config, progress=False)
    return network


def trained_policy(
    network: PrunableNetwork, images: Any, alpha: float, episodes: int, seed: int
) -> Any:
    """Return the decision network that an agent learns from rewards on these images."""
    settings = DQNSettings(
        encoder=16,
        hidden=16,
        lr=3e-3,
        n_step=len(network.sites),
        relabel=False,  # the rest of an episode was decided under its own penalty
        epsilon=EpsilonSchedule(steps=episodes * len(network.sites) // 2),
        images_per_runner=LOCKSTEP,
    )
    config = dqn_config(
        PruningProblem(
            network=network,
            data=images,
            penalty=(PENALTIES[0], PENALTIES[-1]),
            alpha=alpha,
            step_cost=cost.get("macs")(network),
            seed=seed,
        ),
        settings,
    )
    algorithm = build(config)
    for _ in range(episodes // LOCKSTEP):
        algorithm.train()
    decisions = algorithm.decision_network()
    algorithm.stop()
    return decisions


@torch.inference_mode()
def measured(network: PrunableNetwork, policy: Any, images: Any) -> tuple[float, float]:
    """Return accuracy and MACs, both in percent."""
    result = network.execute(to_float(images.images_NCHW), policy, mode="masked")
    correct = float((result.logits_BK.argmax(1).numpy() == images.labels_N).mean())
    macs = plan_macs(network, network.channels(result.groups_BL)).double().mean()
    return 100 * correct, 100 * float(macs) / dense_macs(network)


def one_seed(data: Any, options: argparse.Namespace, seed: int) -> dict[tuple[str, str], Any]:
    """Return (accuracy, MACs) by source of rewards and policy."""
    order = np.random.default_rng(seed).permutation(len(data.training))
    learned, rest = (data.training.take(part) for part in np.split(order, [options.images]))
    unseen = SimpleNamespace(
        images_NCHW=np.concatenate([rest.images_NCHW, data.validation.images_NCHW]),
        labels_N=np.concatenate([rest.labels_N, data.validation.labels_N]),
    )
    network = overfitted(learned, seed, options.epochs)
    rewarding = data.policy.head(options.images)
    scale = {
        "learned": reward_scale(network, learned, seed=seed),
        "unseen": reward_scale(network, rewarding, seed=seed),
    }
    sources = {
        "unseen images": (rewarding, scale["unseen"]),
        "learned images": (learned, scale["learned"]),
        "learned, scale of unseen": (learned, scale["unseen"]),
    }
    found: dict[tuple[str, str], Any] = {
        ("scales of the loss", "learned, unseen"): (scale["learned"], scale["unseen"])
    }
    full = FixedPolicy([network.groups] * len(network.sites))
    found["full width", "learned images"] = measured(network, full, learned)
    for groups in range(1, network.groups + 1):
        fixed = FixedPolicy([groups] * len(network.sites))
        found["full width", f"{groups} of {network.groups}"] = measured(network, fixed, unseen)
    for source, (images, alpha) in sources.items():
        decisions = trained_policy(network, images, alpha, options.episodes, seed)
        for penalty in PENALTIES:
            policy = DecisionPolicy(decisions, penalty)
            found[source, f"penalty {penalty:g}"] = measured(network, policy, unseen)
    return found


def interval(values: Sequence[float]) -> str:
    """Return the mean with its 95 % interval (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:+6.2f} +- nan"
    error = statistics.stdev(values) / len(values) ** 0.5
    wide = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return f"{statistics.mean(values):+6.2f} +-{wide:5.2f}"


def main() -> None:
    """Run all seeds; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--episodes", type=int, default=4000)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    data = datasets.load("digits")
    seeds = [one_seed(data, options, seed) for seed in range(options.seeds)]
    for source, policy in seeds[0]:
        columns = list(zip(*(found[source, policy] for found in seeds), strict=True))
        base = [found.get(("unseen images", policy)) for found in seeds]
        cells = [f"{statistics.mean(column):6.2f}" for column in columns]
        if base[0] is not None:
            others = zip(*base, strict=True)
            cells = [
                f"{cell} ({interval([a - b for a, b in zip(own, other, strict=True)])})"
                for cell, own, other in zip(cells, columns, others, strict=True)
            ]
        print(f"{source:26} {policy:16} " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()

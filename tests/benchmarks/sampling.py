"""Steps per second of our DQN against RLlib's stock DQN; and what of sampling is the network's.

Run:     python tests/benchmarks/sampling.py [--rounds 4] [--env-runners 0] [--part stock network]
Expect:  first, one line per round and the median ratio; at least 8 on a quiet machine. Then the
         share of the sampling time that the network itself takes; at least 60 %. Absolute numbers
         move with the machine's load, ratios much less.

Against stock: both learn on the same environment (an oracle network of 12 sites that costs nothing,
256 images in lockstep), at the same replay ratio and batch size, with one torch thread. Stock DQN
has a plain feed-forward network, since its recurrent mode does not run on vector environments: it
is spared the recurrent cell.

In the network: resnet20-cifar with random weights, masked, costs in MACs. An env runner samples
whole episodes; then the network alone runs the same number of images under the same plans, and the
plain backbone runs them once. CPU time of the process, interleaved, medians.
"""

import argparse
import logging
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig

from pruning_envs.oracle import OracleNetwork, oracle_images
from runtime_pruning import backbones, cost
from runtime_pruning.agents.algorithm import build
from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.agents.dqn_config import dqn_config
from runtime_pruning.agents.rllib_env import ENV_ID, env_config, register_environments
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.resources import AgentResources, EnvRunnerRequest

SITES, GROUPS, CLASSES, IMAGES = 12, 4, 10, 256
BATCH_STEPS = 1024


def problem(network: OracleNetwork, images: Any, env_runners: int) -> PruningProblem:
    """Return what both learn."""
    runners = EnvRunnerRequest(workers=env_runners)
    resources = AgentResources(env_runner=runners)
    return PruningProblem(
        network=network, data=images, penalty=0.1, episodes=1_000_000, resources=resources
    )


def ours(network: OracleNetwork, images: Any, ratio: float, env_runners: int) -> Any:
    """Return our algorithm."""
    settings = DQNSettings(
        images_per_runner=IMAGES,
        batch_episodes=BATCH_STEPS // SITES,
        replay_ratio=ratio,
        warmup_episodes=0,
    )
    return build(dqn_config(problem(network, images, env_runners), settings))


def stock(network: OracleNetwork, images: Any, ratio: float, env_runners: int) -> Any:
    """Return RLlib's DQN, tuned as far as its settings go."""
    config = DQNConfig()
    register_environments()
    shared = env_config(problem(network, images, env_runners))
    config.environment(ENV_ID, env_config=shared, normalize_actions=False)
    config.env_runners(
        num_env_runners=env_runners,
        num_envs_per_env_runner=IMAGES,
        num_cpus_per_env_runner=0.5,
        gym_env_vectorize_mode="vector_entry_point",
        rollout_fragment_length=SITES,
    )
    config.training(
        train_batch_size=BATCH_STEPS,
        training_intensity=ratio,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
        num_steps_sampled_before_learning_starts=0,
        lr=1e-3,
    )
    config.rl_module(model_config={"fcnet_hiddens": [64, 64]})
    config.reporting(min_sample_timesteps_per_iteration=IMAGES * SITES)
    return config.build_algo()


def steps_per_second(algorithm: Any, seconds: float) -> float:
    """Train for about so long; return the environment steps sampled per second."""
    start, before, now = time.perf_counter(), None, 0
    while before is None or time.perf_counter() - start < seconds:
        now = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
        if before is None:  # the first iteration is not timed
            before, start = now, time.perf_counter()
    return (now - before) / (time.perf_counter() - start)


def network_alone(network: PrunableNetwork, images_BCHW: Any, actions_BL: np.ndarray) -> None:
    """Run plans as the environment does, its features included, and nothing else."""
    with torch.inference_mode():
        run = network.start(images_BCHW, mode="masked")
        for site in range(len(network.sites)):
            _ = run.features_BF
            run.advance(torch.from_numpy(actions_BL[:, site] + 1))
        _ = run.logits_BK


def against_network(rounds: int, lockstep: int) -> None:
    """Print what share of the sampling time the network takes."""
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=(3, 32, 32))
    network = trace(backbone, (3, 32, 32), align=4).eval()
    rng = np.random.default_rng(0)
    images_NCHW = rng.integers(0, 256, (4 * lockstep, 3, 32, 32), dtype=np.uint8)
    data = SimpleNamespace(images_NCHW=images_NCHW, labels_N=rng.integers(0, 10, 4 * lockstep))
    settings = DQNSettings(images_per_runner=lockstep)
    step_cost = cost.get("macs")(network)
    runner = build(
        dqn_config(
            PruningProblem(
                network=network, data=data, penalty=(0.1, 1.0), step_cost=step_cost, episodes=1000
            ),
            settings,
        )
    ).env_runner
    images_BCHW = torch.from_numpy(images_NCHW[:lockstep]).float() / 255
    (episodes,) = runner.sample()  # the first is not timed
    shares = []
    for number in range(rounds):
        times = [time.process_time()]
        (episodes,) = runner.sample()
        times.append(time.process_time())
        network_alone(network, images_BCHW, episodes.actions_EL)
        times.append(time.process_time())
        with torch.inference_mode():
            network(images_BCHW)
        times.append(time.process_time())
        sampled, alone, dense = np.diff(times)
        shares.append((alone / sampled, dense / sampled))
        print(
            f"round {number}: sampling {1e3 * sampled:.0f} ms of CPU, the network alone "
            f"{1e3 * alone:.0f} ms, the dense backbone {1e3 * dense:.0f} ms; "
            f"{len(episodes) / sampled:.0f} steps/s"
        )
    alone, dense = (100 * statistics.median(column) for column in zip(*shares, strict=True))
    print(f"in the network: {alone:.0f} % of the sampling time; one dense pass: {dense:.0f} %")


def against_stock(rounds: int, seconds: float, replay_ratio: float, env_runners: int) -> None:
    """Print steps per second of both, and their ratio, round by round."""
    generator = torch.Generator().manual_seed(0)
    needed_KL = torch.randint(1, GROUPS + 1, (CLASSES, SITES), generator=generator)
    network = OracleNetwork(needed_KL, groups=GROUPS)
    images_NCHW, labels_N = oracle_images(CLASSES, 1000)
    images = SimpleNamespace(images_NCHW=images_NCHW, labels_N=labels_N)
    rivals = [make(network, images, replay_ratio, env_runners) for make in (ours, stock)]
    ratios = []
    for number in range(rounds):
        own, theirs = (steps_per_second(algorithm, seconds) for algorithm in rivals)
        ratios.append(own / theirs)
        print(f"round {number}: ours {own:.0f}/s, stock {theirs:.0f}/s, ratio {ratios[-1]:.1f}")
    print(f"median ratio {statistics.median(ratios):.1f} at replay ratio {replay_ratio:g}")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", nargs="+", choices=["stock", "network"], default=["stock", "network"]
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="per algorithm and round")
    parser.add_argument("--replay-ratio", type=float, default=1.0)
    parser.add_argument("--env-runners", type=int, default=0)
    parser.add_argument("--lockstep", type=int, default=128, help="images, in the network's part")
    args = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    if "stock" in args.part:
        against_stock(args.rounds, args.seconds, args.replay_ratio, args.env_runners)
    if "network" in args.part:
        against_network(args.rounds, args.lockstep)


if __name__ == "__main__":
    main()

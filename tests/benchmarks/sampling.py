"""Steps per second of our DQN against RLlib's stock DQN, interleaved in one process.

Run:     python tests/benchmarks/sampling.py [--rounds 4] [--env-runners 0]
Expect:  one line per round and the median ratio; at least 8 on a quiet machine. Absolute numbers
         move with the machine's load, the ratio much less.

Both learn on the same environment (an oracle network of 12 sites, 256 images in lockstep), at the
same replay ratio and batch size, with one torch thread. Stock DQN has a plain feed-forward network,
since its recurrent mode does not run on vector environments: it is spared the recurrent cell.
"""

import argparse
import logging
import statistics
import time
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig

from pruning_envs.oracle import OracleNetwork, oracle_images
from runtime_pruning.agents.dqn import dqn_config
from runtime_pruning.agents.env_runner import SharedPruningEnv
from runtime_pruning.agents.running import build
from runtime_pruning.agents.settings import DQNSettings

SITES, GROUPS, CLASSES, IMAGES = 12, 4, 10, 256
BATCH_STEPS = 1024


class FlatEnv(gym.vector.VectorEnv):
    """The same environment with its observation in one array: stock models take no dictionary."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._batch = SharedPruningEnv(settings)
        self.metadata = self._batch.metadata
        self.num_envs = self._batch.num_envs
        width = self._batch.single_observation_space["features"].shape[0] + 3
        self.single_observation_space = gym.spaces.Box(-1e30, 1e30, (width,), np.float32)
        self.observation_space = gym.vector.utils.batch_space(
            self.single_observation_space, self.num_envs
        )
        self.single_action_space = self._batch.single_action_space
        self.action_space = self._batch.action_space

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return self._flat(self._batch.reset(**kwargs)[0]), {}

    def step(self, actions: np.ndarray) -> Any:
        observation, *rest, _ = self._batch.step(actions)
        return self._flat(observation), *rest, {}

    @staticmethod
    def _flat(seen: dict[str, np.ndarray]) -> np.ndarray:
        others = (seen["site"][:, None], seen["penalty"], seen["previous_groups"][:, None])
        return np.concatenate([seen["features"], *others], 1, dtype=np.float32)


def ours(network: OracleNetwork, images: Any, ratio: float, env_runners: int) -> Any:
    """Return our algorithm."""
    settings = DQNSettings(
        images_per_runner=IMAGES,
        batch_episodes=BATCH_STEPS // SITES,
        replay_ratio=ratio,
        warmup_episodes=0,
        env_runners=env_runners,
    )
    return build(dqn_config(network=network, data=images, penalty=0.1, settings=settings))


def stock(network: OracleNetwork, images: Any, ratio: float, env_runners: int) -> Any:
    """Return RLlib's DQN, tuned as far as its settings go."""
    tuned = dqn_config(network=network, data=images, penalty=0.1)
    config = DQNConfig()
    config.environment(FlatEnv, env_config=tuned.env_config, normalize_actions=False)
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


def main() -> None:
    """Print steps per second of both, and their ratio, round by round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="per algorithm and round")
    parser.add_argument("--replay-ratio", type=float, default=1.0)
    parser.add_argument("--env-runners", type=int, default=0)
    args = parser.parse_args()
    logging.getLogger("ray").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    generator = torch.Generator().manual_seed(0)
    needed_KL = torch.randint(1, GROUPS + 1, (CLASSES, SITES), generator=generator)
    network = OracleNetwork(needed_KL, groups=GROUPS)
    images_NCHW, labels_N = oracle_images(CLASSES, 1000)
    images = SimpleNamespace(images_NCHW=images_NCHW, labels_N=labels_N)
    rivals = [make(network, images, args.replay_ratio, args.env_runners) for make in (ours, stock)]
    ratios = []
    for number in range(args.rounds):
        own, theirs = (steps_per_second(algorithm, args.seconds) for algorithm in rivals)
        ratios.append(own / theirs)
        print(f"round {number}: ours {own:.0f}/s, stock {theirs:.0f}/s, ratio {ratios[-1]:.1f}")
    print(f"median ratio {statistics.median(ratios):.1f} at replay ratio {args.replay_ratio:g}")


if __name__ == "__main__":
    main()

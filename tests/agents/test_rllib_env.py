"""RLlib's own algorithms learn on the environment by its name, here and in other processes."""

import json
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.ppo import PPOConfig

import pruning_envs
from pruning_envs import CascadeEnv, CascadeTable, CascadeVectorEnv, RuntimePruningVectorEnv
from pruning_envs.oracle import OracleNetwork, oracle_images
from runtime_pruning.agents.object_store import ObjectStoreValue
from runtime_pruning.agents.rllib_env import (
    CASCADE_ID,
    ENV_ID,
    NETWORK_ID,
    make_cascade,
    make_environment,
    register_environments,
)
from runtime_pruning.errors import ConfigError

# RLlib files each environment under one name of its own; gymnasium warns when it is taken.
pytestmark = pytest.mark.filterwarnings("ignore:.*rllib-single-agent-env-v0 already in registry")

NAMES = {"backbone": "digits-cnn", "dataset": "digits", "groups": 3, "penalty": 0.1}


@pytest.fixture(scope="module")
def oracle() -> OracleNetwork:
    """Three classes, shown before each of two sites, that need different groups."""
    return OracleNetwork(torch.tensor([[1, 2], [2, 1], [1, 1]]), groups=2)


@pytest.fixture
def held(oracle: OracleNetwork) -> dict[str, Any]:
    images_NCHW, labels_N = oracle_images(classes=3, copies=8)
    data = SimpleNamespace(images_NCHW=images_NCHW, labels_N=labels_N)
    return {"network": oracle, "data": data, "penalty": 0.5}


def test_rllib_knows_the_names_that_gymnasium_knows() -> None:
    assert {ENV_ID, CASCADE_ID, NETWORK_ID} == set(pruning_envs.IDS)


def test_names_are_plain_values_and_make_the_same_environment_everywhere() -> None:
    one = make_environment(NAMES | {"seed": 3})
    other = make_environment(json.loads(json.dumps(NAMES)) | {"seed": 3, "num_envs": 2})
    seen, _ = one.reset(seed=5)
    seen_B, _ = other.reset(seed=5)
    assert np.array_equal(seen, seen_B[0])
    assert seen.dtype == np.float32
    # The widest site's features; penalty; one-hot: 0 to 3 groups before, sites 0 to 3.
    assert one.observation_space.shape == (max(one.unwrapped.batch.network.feature_widths) + 9,)


def test_a_flat_observation_is_gymnasiums_and_the_dictionary_can_be_had(
    held: dict[str, Any],
) -> None:
    flat, whole = (make_environment(held | {"flatten": each, "seed": 1}) for each in (True, False))
    assert isinstance(whole, gym.Env)
    for action in (1, 0):
        flat.reset(seed=action), whole.reset(seed=action)
        seen, (told, *_) = flat.step(action)[0], whole.step(action)
        expected = gym.spaces.flatten(whole.observation_space, told)
        assert np.array_equal(seen, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": 0.1}, "must name `backbone` and `dataset`, or hold `network` and `data`"),
        (NAMES | {"backbone": "digit-cnn"}, "No backbone is called 'digit-cnn'. Did you mean"),
        (NAMES | {"split": "test"}, "Input should be 'policy' or 'training', but got 'test'"),
        ({"backbone": "digits-cnn", "penalty": 0.1}, "dataset: Field required"),
    ],
)
def test_what_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError)) as caught:
        make_environment(settings)
    assert message in str(caught.value)


def stock_dqn() -> AlgorithmConfig:
    config = DQNConfig().training(
        lr=5e-3,
        train_batch_size=128,
        training_intensity=16,
        num_steps_sampled_before_learning_starts=256,
        target_network_update_freq=128,
        epsilon=[(0, 1.0), (1500, 0.1)],
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 20_000},
    )
    return config.reporting(min_sample_timesteps_per_iteration=256)


def stock_ppo() -> AlgorithmConfig:
    return PPOConfig().training(
        lr=3e-3, train_batch_size=384, minibatch_size=128, num_epochs=6, entropy_coeff=0.003
    )


def plans(algorithm: Any, held: dict[str, Any]) -> list[list[int]]:
    """The greedy plan for each class, by what RLlib's module says."""
    env = make_environment(held | {"num_envs": 3})
    batch: Any = env.unwrapped
    assert isinstance(batch, RuntimePruningVectorEnv)
    batch.set_images(*oracle_images(classes=3, copies=1), shuffle=False)
    seen, _ = env.reset()
    chosen = []
    for _ in range(batch.sites):
        out = algorithm.get_module().forward_inference({"obs": torch.from_numpy(seen)})
        scores = out.get("action_dist_inputs")
        action = out["actions"] if scores is None else scores.argmax(1)
        chosen.append(action.numpy() + 1)
        seen = env.step(action.numpy())[0]
    return np.stack(chosen, 1).tolist()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("env_runners", [0, 2])
@pytest.mark.parametrize("stock", [stock_dqn, stock_ppo])
def test_stock_algorithms_find_the_known_best_plans(
    held: dict[str, Any], oracle: OracleNetwork, stock: Any, env_runners: int
) -> None:
    """A missing group loses 1 and costs 0.5: each class runs what it needs and no more."""
    register_environments()
    # One configuration holds the network as it is, the other in the object store.
    stored = held | {name: ObjectStoreValue(held[name]) for name in ("network", "data")}
    config = stock().environment(ENV_ID, env_config=stored if env_runners else held)
    config.env_runners(
        num_env_runners=env_runners, num_envs_per_env_runner=16, num_cpus_per_env_runner=0.5
    )
    algorithm = config.debugging(seed=0, log_level="ERROR").build_algo()
    for _ in range(40):
        algorithm.train()
        if (found := plans(algorithm, held)) == oracle.needed_KL.tolist():
            break
    algorithm.stop()
    assert found == oracle.needed_KL.tolist()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_names_suffice_in_rllibs_vector_mode() -> None:
    register_environments()
    config = PPOConfig().environment(ENV_ID, env_config=NAMES)
    config.env_runners(gym_env_vectorize_mode="vector_entry_point", num_envs_per_env_runner=32)
    config.training(train_batch_size=256, minibatch_size=128, num_epochs=1)
    algorithm = config.debugging(log_level="ERROR").build_algo()
    result = algorithm.train()["env_runners"]
    sites: Any = make_environment(NAMES).unwrapped
    assert result["episode_len_mean"] == sites.batch.sites
    assert -10 < result["episode_return_mean"] < 0
    algorithm.stop()


def test_a_cascade_is_one_environment_or_many() -> None:
    table = CascadeTable(
        log_probabilities_NMK=np.log(np.full((2, 1, 2), 0.5, np.float32)),
        labels_N=np.array([0, 1]),
        costs_NM=np.ones((2, 1), np.float32),
        weights_SM=np.array([[0.0], [1.0]]),
    )
    single = make_cascade({"table": table, "penalty": 0.1})
    assert isinstance(single, CascadeEnv)
    assert single.action_space.n == 2
    many = make_cascade({"table": table, "penalty": (0.1, 1.0), "num_envs": 3})
    assert isinstance(many, CascadeVectorEnv)
    assert many.reset(seed=0)[0].shape == (3, 7)  # 2 sorted, 3 summaries, 1 flag, the penalty

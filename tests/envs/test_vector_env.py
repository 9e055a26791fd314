"""The environment keeps gymnasium's rules and pays the paper's reward."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from pruning_envs import RuntimePruningVectorEnv
from pruning_envs.oracle import OracleNetwork, oracle_images

MAKE = "pruning_envs:RuntimePruning-v0"


def make_vec(num_envs: int, settings: dict[str, Any]) -> RuntimePruningVectorEnv:
    env = gym.make_vec(MAKE, num_envs=num_envs, vectorization_mode="vector_entry_point", **settings)
    assert isinstance(env, RuntimePruningVectorEnv)
    return env


def oracle_settings(**changes: Any) -> dict[str, Any]:
    """Two classes, three sites, three groups: class 0 needs 1, 2, 3 groups; class 1 one each."""
    network = OracleNetwork(torch.tensor([[1, 2, 3], [1, 1, 1]]), groups=3, loss_per_group=0.5)
    images, labels = oracle_images(classes=2, copies=4)
    return {"network": network, "images": images, "labels": labels, "penalty": 0.1} | changes


def rollout(env: RuntimePruningVectorEnv, seed: int, steps: int) -> bytes:
    """Return everything that the environment said, as bytes."""
    rng = np.random.default_rng(seed)
    said: list[Any] = [env.reset(seed=seed)]
    said += [env.step(rng.integers(0, env.groups, env.num_envs)) for _ in range(steps)]
    return pickle.dumps(said)


def test_replays_bit_for_bit_from_a_seed(settings: dict[str, Any]) -> None:
    settings |= {"penalty": (0.01, 1.0)}
    env = make_vec(5, settings)
    first = rollout(env, 3, 7)
    assert first == rollout(env, 3, 7) == rollout(make_vec(5, settings), 3, 7)
    assert first != rollout(env, 4, 7)


def test_observations_lie_in_the_space_and_show_the_state(settings: dict[str, Any]) -> None:
    env = make_vec(4, settings)
    start, _ = env.reset(seed=0)
    middle, *_ = env.step(np.array([0, 1, 0, 1]))
    end, _, terminated_B, truncated_B, _ = env.step(np.array([1, 1, 0, 0]))
    assert all(env.observation_space.contains(seen) for seen in (start, middle, end))
    assert [seen["site"].tolist() for seen in (start, middle, end)] == [[0] * 4, [1] * 4, [2] * 4]
    assert start["previous_groups"].tolist() == [0, 0, 0, 0]
    assert middle["previous_groups"].tolist() == [1, 2, 1, 2]
    assert end["previous_groups"].tolist() == [2, 2, 1, 1]
    assert start["features"].shape == (4, 6)  # padded from 4 to the widest site's 6
    assert not start["features"][:, 4:].any()
    assert start["features"][:, :4].all(1).any()
    # One group at the first site: its upper three of six channels never ran.
    assert not middle["features"][[0, 2], 3:].any()
    assert middle["features"][[1, 3], 3:].any()
    assert not end["features"].any()
    assert terminated_B.all()
    assert not truncated_B.any()


def test_the_step_after_the_end_starts_the_next_images(settings: dict[str, Any]) -> None:
    env = make_vec(3, settings)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    _, first = env.reset(seed=0)
    env.step(np.zeros(3, int))
    env.step(np.zeros(3, int))
    seen, reward_B, terminated_B, truncated_B, info = env.step(np.full(3, 99))  # ignored
    assert seen["site"].tolist() == [0, 0, 0]
    assert seen["previous_groups"].tolist() == [0, 0, 0]
    assert reward_B.tolist() == [0, 0, 0]
    assert not (terminated_B | truncated_B).any()
    assert set(info["image"]).isdisjoint(first["image"])


def test_reward_of_a_hand_worked_episode() -> None:
    # Penalty 0.1, alpha 2. Class 0 misses one of two groups at site 1 and none elsewhere:
    # cross-entropy 0.5. Class 1 misses nothing.
    env = make_vec(2, oracle_settings(alpha=2.0))
    env.set_images(*oracle_images(classes=2, copies=1), shuffle=False)
    env.reset(seed=0)
    rewards = [env.step(np.array(a))[1].tolist() for a in ([0, 2], [0, 1], [2, 0])]
    # groups (1, 1, 3) and (3, 2, 1): the paper's cost is groups - 1.
    assert rewards[0] == pytest.approx([0.0, -0.2])
    assert rewards[1] == pytest.approx([0.0, -0.1])
    assert rewards[2] == pytest.approx([-0.2 - 2 * 0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("loss", ["cross-entropy", "error"])
def test_terminal_reward_is_minus_alpha_times_the_networks_loss(
    settings: dict[str, Any], loss: str
) -> None:
    env = make_vec(3, settings | {"penalty": 0.0, "alpha": 0.5, "loss": loss})
    _, info = env.reset(seed=0)
    env.step(np.ones(3, int))
    _, reward_B, _, _, facts = env.step(np.ones(3, int))
    x_BCHW = torch.from_numpy(settings["images"][info["image"]]).float() / 255
    network = settings["network"]
    with torch.no_grad():
        for conv in network.convs:
            x_BCHW = conv(x_BCHW).relu()
        log_p_BK = network.linear(x_BCHW.mean((2, 3))).log_softmax(1).numpy()
    log_p_B = log_p_BK[range(3), settings["labels"][info["image"]]]
    expected_B = 0.5 * (log_p_B if loss == "cross-entropy" else np.exp(log_p_B) - 1)
    assert reward_B == pytest.approx(expected_B, rel=1e-5)
    assert facts["loss"] == pytest.approx(-2 * expected_B, rel=1e-5)


def test_another_cost_prices_each_decision() -> None:
    def square_of_all_so_far(site: int, groups_BS: torch.Tensor) -> torch.Tensor:
        assert groups_BS.shape[1] == site + 1
        return groups_BS.sum(1) ** 2

    env = make_vec(1, oracle_settings(step_cost=square_of_all_so_far, alpha=0.0))
    env.reset(seed=0)
    rewards = [float(env.step(np.array([a]))[1][0]) for a in (0, 1, 2)]
    assert rewards == pytest.approx([-0.1 * 1, -0.1 * 9, -0.1 * 36])


def test_penalties_are_drawn_log_uniformly_and_observed() -> None:
    env = make_vec(4000, oracle_settings(penalty=(0.01, 1.0)))
    penalty_B = env.reset(seed=0)[0]["penalty"][:, 0]
    assert penalty_B.min() >= 0.01
    assert penalty_B.max() <= 1.0
    # Half of the mass lies below the geometric mean 0.1; 3 standard errors of 0.5 are 0.024.
    assert abs(np.mean(penalty_B < 0.1) - 0.5) < 0.024
    _, reward_B, *_ = env.step(np.full(4000, 2))
    assert reward_B == pytest.approx(-2 * penalty_B)


def test_every_image_is_seen_once_before_any_twice(settings: dict[str, Any]) -> None:
    env = make_vec(4, settings)
    seen = [env.reset(seed=0)[1]["image"]] + [env.reset()[1]["image"] for _ in range(5)]
    for third in (seen[:3], seen[3:]):
        assert sorted(np.concatenate(third)) == list(range(12))
    assert not np.array_equal(np.concatenate(seen[:3]), np.concatenate(seen[3:]))


def test_shards_share_no_image_and_cover_all(settings: dict[str, Any]) -> None:
    drawn = []
    for index in range(3):
        env = make_vec(4, settings)
        env.set_shard(index, 3)
        drawn.append(env.reset(seed=0)[1]["image"])
    assert sorted(np.concatenate(drawn)) == list(range(12))


def test_a_pushed_backbone_counts_from_the_next_episode_on(settings: dict[str, Any]) -> None:
    env = make_vec(2, settings | {"penalty": 0.0})
    kept = make_vec(2, settings | {"penalty": 0.0})
    constant = {k: torch.zeros_like(v) for k, v in settings["network"].state_dict().items()}
    for each in (env, kept):
        each.reset(seed=0)
        each.step(np.ones(2, int))
    assert env.set_backbone(constant, version=7) == 7
    assert env.backbone_version == 0  # this episode still runs the old weights
    last, kept_last = env.step(np.ones(2, int))[1], kept.step(np.ones(2, int))[1]
    assert last.tolist() == kept_last.tolist()
    env.reset()
    assert env.backbone_version == 7
    env.step(np.ones(2, int))
    # All-zero weights: five equal scores, cross-entropy log 5.
    assert env.step(np.ones(2, int))[1] == pytest.approx(-np.log(5.0), rel=1e-5)


def test_the_environment_owns_its_network(settings: dict[str, Any]) -> None:
    env = make_vec(2, settings)
    before = env.reset(seed=0)[0]["features"]
    with torch.no_grad():
        settings["network"].convs[0].weight.zero_()
    assert np.array_equal(env.reset(seed=0)[0]["features"], before)


def test_the_network_may_come_from_a_factory(settings: dict[str, Any]) -> None:
    made = make_vec(2, settings | {"network": lambda: settings["network"]})
    assert rollout(made, 0, 3) == rollout(make_vec(2, settings), 0, 3)


def test_images_are_never_copied(settings: dict[str, Any]) -> None:
    settings["images"].flags.writeable = False
    env = make_vec(2, settings)
    env.reset(seed=0)
    assert env._queue.images_NCHW is settings["images"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"penalty": -0.1}, r"0 <= penalty < inf.*-0\.1"),
        ({"penalty": (0.0, 1.0)}, "low > 0"),
        ({"penalty": (1.0, 0.5)}, r"low=1\.0, high=0\.5"),
        ({"alpha": float("nan")}, "alpha.*nan"),
        ({"loss": "hinge"}, "must be one of .*'error'.*got 'hinge'"),
        ({"shard": (2, 2)}, r"0 <= index < count"),
        ({"shard": (12, 13)}, "empty"),
        ({"images": np.zeros((12, 3, 5, 5), np.float32)}, "uint8.*float32"),
        ({"labels": np.zeros(11, np.int64)}, "12 images and labels of shape"),
    ],
)
def test_bad_settings_are_refused(
    settings: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RuntimePruningVectorEnv(**(settings | changes))


@pytest.mark.parametrize("actions", [[0, 2], [-1, 0], [0]])
def test_bad_actions_are_refused(settings: dict[str, Any], actions: list[int]) -> None:
    env = make_vec(2, settings)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.array([0, 0]))
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction):
        env.step(np.array(actions))


def test_images_move_in_lockstep(settings: dict[str, Any]) -> None:
    env = make_vec(2, settings)
    with pytest.raises(ValueError, match="lockstep"):
        env.reset(options={"reset_mask": np.array([True, False])})

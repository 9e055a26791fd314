"""The replay: whole episodes, the last ones, on one backbone."""

import numpy as np
import pytest

from pruning_envs import PenaltyRange
from runtime_pruning.agents.replay import EpisodeReplay, Episodes


def episodes(first: int, count: int, version: int = 0) -> Episodes:
    """Episodes of two steps whose every number names the episode: first, first + 1, ..."""
    name_E = np.arange(first, first + count)
    return Episodes(
        features_ELF=np.tile(name_E[:, None, None], (1, 2, 3)).astype(np.float32),
        actions_EL=np.tile(name_E[:, None], (1, 2)),
        cost_EL=np.tile(name_E[:, None], (1, 2)).astype(np.float32),
        loss_E=name_E.astype(np.float32),
        penalty_E=name_E.astype(np.float32),
        backbone_version=version,
    )


def held(replay: EpisodeReplay) -> set[int]:
    return set(replay.sample(500).actions_EL[:, 0].tolist())


def test_the_last_episodes_are_kept_whole() -> None:
    replay = EpisodeReplay(5, seed=0)
    assert [replay.add(episodes(0, 3)), replay.add(episodes(3, 4))] == [3, 4]
    assert len(replay) == 5
    assert held(replay) == {2, 3, 4, 5, 6}
    drawn = replay.sample(50)
    name_E = drawn.actions_EL[:, 0]
    assert (drawn.features_ELF == name_E[:, None, None]).all()
    assert (drawn.actions_EL == name_E[:, None]).all()
    assert (drawn.cost_EL == name_E[:, None]).all()
    assert (drawn.loss_E == name_E).all()
    assert (drawn.penalty_E == name_E).all()


def test_more_episodes_than_fit_leave_the_last() -> None:
    replay = EpisodeReplay(3, seed=0)
    replay.add(episodes(0, 8))
    assert held(replay) == {5, 6, 7}


def test_draws_follow_the_seed() -> None:
    one, same, other = (EpisodeReplay(50, seed=seed) for seed in (1, 1, 2))
    for replay in (one, same, other):
        replay.add(episodes(0, 50))
    drawn = [replay.sample(20).penalty_E.tolist() for replay in (one, same, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_newer_backbone_drops_older_episodes_and_latecomers() -> None:
    replay = EpisodeReplay(8, seed=0)
    replay.add(episodes(0, 4, version=0))
    assert replay.add(episodes(10, 2, version=1)) == 2
    assert replay.add(episodes(4, 2, version=0)) == 0
    assert held(replay) == {10, 11}
    replay.flush(2)
    assert len(replay) == 0
    assert replay.add(episodes(12, 1, version=1)) == 0
    with pytest.raises(ValueError, match="empty"):
        replay.sample(1)


def test_an_episode_is_worth_what_it_spent_and_lost_under_any_penalty() -> None:
    replay = EpisodeReplay(4, seed=0)
    replay.add(
        Episodes(
            features_ELF=np.zeros((1, 2, 1), np.float32),
            actions_EL=np.array([[0, 1]]),
            cost_EL=np.array([[0.25, 0.5]], np.float32),
            loss_E=np.array([3.0], np.float32),
            penalty_E=np.array([2.0], np.float32),
        )
    )
    as_it_ran = replay.sample(1)
    assert as_it_ran.rewards_EL.tolist() == [[-0.5, -4.0]]
    drawn = replay.sample(200, PenaltyRange(0.5, 8.0))
    assert drawn.penalty_E.min() < 1 < 4 < drawn.penalty_E.max()
    assert ((drawn.penalty_E >= 0.5) & (drawn.penalty_E <= 8.0)).all()
    expected_EL = drawn.penalty_E[:, None] * np.array([[-0.25, -0.5]]) - np.array([[0, 3]])
    np.testing.assert_allclose(drawn.rewards_EL, expected_EL, rtol=1e-6)
    assert replay.sample(1).penalty_E.tolist() == [2.0]  # what is kept is as it ran


def test_state_survives_a_round_trip_into_the_next_draws() -> None:
    replay = EpisodeReplay(4, seed=0)
    replay.add(episodes(0, 6, version=3))
    replay.sample(7)
    copy = EpisodeReplay(4, seed=9)
    copy.set_state(replay.get_state())
    for each in (replay, copy):
        each.add(episodes(6, 1, version=3))
    assert copy.backbone_version == 3
    assert held(copy) == {3, 4, 5, 6}
    assert copy.sample(20).penalty_E.tolist() != [0.0] * 20
    # Both have drawn alike since: `held` above advanced only the copy.
    held(replay)
    replay.sample(20)
    assert copy.sample(20).penalty_E.tolist() == replay.sample(20).penalty_E.tolist()


def test_the_decision_before_the_first_is_none() -> None:
    plan = Episodes(
        features_ELF=np.zeros((1, 3, 1), np.float32),
        actions_EL=np.array([[2, 0, 1]]),
        cost_EL=np.zeros((1, 3), np.float32),
        loss_E=np.zeros(1, np.float32),
        penalty_E=np.zeros(1, np.float32),
    )
    assert plan.previous_EL.tolist() == [[0, 3, 1]]  # groups, one more than the action
    assert (len(plan), plan.env_steps(), plan.agent_steps()) == (3, 3, 3)

"""The decision network as RLlib sees it: exploration, targets, and values of whole episodes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.rl_module import QF_NEXT, QF_PREDS, QF_TARGET_NEXT, RNPModule
from runtime_pruning.agents.schedule import EpsilonSchedule

CONFIG = DecisionConfig(feature_widths=(4, 6, 5), groups=3, encoder=8, hidden=7, decides_from=1)
BATCH = 600


@pytest.fixture
def module() -> RNPModule:
    torch.manual_seed(0)
    built = RNPModule(
        observation_space=spaces.Box(-1, 1, (6,), np.float32),
        action_space=spaces.Discrete(3),
        model_config={
            "decision": CONFIG,
            "epsilon": EpsilonSchedule(start=1.0, end=0.0, steps=100),
            "n_step": 2,
        },
    )
    built.make_target_networks()
    return built


def standing_at(site: int, network: DecisionNetwork) -> dict[str, object]:
    """Return images at a site, with nothing decided before."""
    obs = {
        "features": torch.rand(BATCH, 6),
        "previous_groups": torch.zeros(BATCH, dtype=torch.int64),
        "penalty": torch.full((BATCH,), 0.3),
    }
    return {"site": site, "obs": obs, "state_in": network.initial_state(BATCH)}


def test_it_acts_greedily_when_exploration_has_ended(module: RNPModule) -> None:
    batch = standing_at(1, module.q_network)
    greedy_B = module.forward_inference(batch)["actions"]
    assert torch.equal(module.forward_exploration(batch, t=100)["actions"], greedy_B)
    explored_B = module.forward_exploration(batch, t=0)["actions"]
    counts = torch.bincount(explored_B, minlength=3)
    assert counts.min() > BATCH / 3 - 60  # even thirds, 5 standard deviations


def test_what_is_not_decided_is_not_explored(module: RNPModule) -> None:
    batch = standing_at(0, module.q_network)
    assert module.forward_exploration(batch, t=0)["actions"].unique().tolist() == [0]


def test_a_seed_repeats_what_is_explored(module: RNPModule) -> None:
    batch = standing_at(1, module.q_network)
    drawn = [
        module.forward_exploration(batch, t=50, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0]["actions"], drawn[1]["actions"])
    assert not torch.equal(drawn[0]["actions"], drawn[2]["actions"])


def test_acting_without_a_state_is_refused(module: RNPModule) -> None:
    batch = standing_at(1, module.q_network)
    del batch["state_in"]
    with pytest.raises(ValueError, match="acts with a state only"):
        module.forward_inference(batch)


def test_all_values_of_the_loss_come_from_one_unroll_of_each_network(module: RNPModule) -> None:
    obs = {
        "features": torch.rand(9, 3, 6),
        "previous_groups": torch.randint(0, 4, (9, 3)),
        "penalty": torch.rand(9),
    }
    with torch.no_grad():
        module.q_network.decode_bias_LG.add_(1.0)  # what acts has learned, its target has not
    told = module.forward_train({"obs": obs})
    q_BLG = module.q_network(*obs.values())
    target_BLG = module._target_q_network(*obs.values())
    torch.testing.assert_close(told[QF_PREDS], q_BLG)
    torch.testing.assert_close(told[QF_NEXT][:, 0], q_BLG[:, 2])  # two sites on
    torch.testing.assert_close(told[QF_TARGET_NEXT][:, 0], target_BLG[:, 2])
    assert (told[QF_NEXT][:, 1:] == 0).all()  # the episode is over by then
    assert not told[QF_TARGET_NEXT].requires_grad
    assert not torch.allclose(q_BLG[:, 1:], target_BLG[:, 1:])

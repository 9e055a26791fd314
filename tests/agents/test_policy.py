"""Policies choose the greatest value; each image may be told a penalty of its own."""

import pytest
import torch

from runtime_pruning.agents.decision_network import (
    DecisionConfig,
    DecisionNetwork,
)
from runtime_pruning.agents.policy import DecisionPolicy, SpreadPolicy


def make(**changes: object) -> DecisionNetwork:
    torch.manual_seed(0)
    config = {"feature_widths": (4, 6, 5), "groups": 3, "encoder": 8, "hidden": 7} | changes
    return DecisionNetwork(DecisionConfig(**config))


def test_the_policy_chooses_the_greatest_value_and_remembers() -> None:
    network = make()
    policy = DecisionPolicy(network, penalty=0.3)
    assert policy.macs_per_image == network.macs_per_image
    chooser = policy.start(5)
    features = [torch.rand(5, width) for width in (4, 6, 5)]
    chosen = torch.stack([chooser.choose(site, f) for site, f in enumerate(features)], 1)
    padded_BLF = torch.stack([torch.nn.functional.pad(f, (0, 6 - f.shape[1])) for f in features], 1)
    previous_BL = torch.cat([torch.zeros(5, 1, dtype=torch.int64), chosen[:, :-1]], 1)
    q_BLG = network(padded_BLF, previous_BL, torch.full((5,), 0.3))
    assert torch.equal(chosen, q_BLG.argmax(-1) + 1)
    assert len(chosen.unique()) > 1


def test_of_equal_values_the_fewest_groups_are_chosen() -> None:
    network = make()
    torch.nn.init.zeros_(network.decode_LHG)
    assert DecisionPolicy(network, 0.1).start(4).choose(0, torch.rand(4, 4)).tolist() == [1] * 4


def test_a_penalty_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 <= penalty < inf.*-0\.5"):
        DecisionPolicy(make(), penalty=-0.5)


def test_what_is_not_decided_runs_one_group_and_costs_nothing() -> None:
    every, late = make(), make(decides_from=2)
    features_BF, previous_B = torch.rand(9, 6), torch.randint(0, 4, (9,))
    for policy in (DecisionPolicy(late, 0.3), DecisionPolicy(late, 0.3).deploy()):
        chooser = policy.start(9)
        assert chooser.choose(0, features_BF).tolist() == [1] * 9
        assert chooser.choose(1, features_BF).tolist() == [1] * 9
        chosen_B = chooser.choose(2, features_BF[:, :5])
        q_BG, _ = late.step(
            2, features_BF, torch.ones(9, dtype=torch.int64), torch.full((9,), 0.3),
            late.initial_state(9),
        )  # fmt: skip
        assert chosen_B.tolist() == (q_BG.argmax(1) + 1).tolist()
    one_site = make(feature_widths=(5,))
    assert late.macs_per_image == one_site.macs_per_image < every.macs_per_image
    q_BLG = late(torch.rand(9, 3, 6), previous_B[:, None].expand(9, 3), torch.rand(9))
    assert (q_BLG[:, :2].argmax(2) == 0).all()


def test_each_image_is_told_a_penalty_of_its_own() -> None:
    network = make()
    penalty_B = torch.tensor([0.01, 30.0, 0.3])
    spread = SpreadPolicy(network, lambda count: penalty_B[:count]).start(3)
    alone = [DecisionPolicy(network, float(penalty)).start(1) for penalty in penalty_B]
    for site, width in enumerate((4, 6, 5)):
        features_BF = torch.rand(3, width)
        chosen_B = spread.choose(site, features_BF)
        each = [one.choose(site, features_BF[i : i + 1]) for i, one in enumerate(alone)]
        assert chosen_B.tolist() == torch.cat(each).tolist()

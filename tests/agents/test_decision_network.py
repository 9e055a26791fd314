"""The decision network: steps and whole episodes agree, values and MACs by hand, bad shapes."""

import subprocess
import sys

import pytest
import torch

from runtime_pruning.agents.decision_network import (
    PENALTY_FLOOR,
    DecisionConfig,
    DecisionNetwork,
)
from runtime_pruning.agents.policy import DecisionPolicy

SHAPES = [
    {"cell": "gru", "dueling": False},
    {"cell": "gru", "dueling": True},
    {"cell": "lstm", "dueling": False},
    {"cell": "gru", "dueling": True, "decides_from": 1},
]


def make(**changes: object) -> DecisionNetwork:
    torch.manual_seed(0)
    config = {"feature_widths": (4, 6, 5), "groups": 3, "encoder": 8, "hidden": 7} | changes
    return DecisionNetwork(DecisionConfig(**config))


@pytest.mark.parametrize("shape", SHAPES)
def test_steps_and_whole_episodes_agree(shape: dict[str, object]) -> None:
    network = make(**shape)
    features_BLF = torch.rand(9, 3, 6)
    for site, width in enumerate((4, 6, 5)):
        features_BLF[:, site, width:] = 0
    network.standardise(features_BLF)
    previous_BL = torch.randint(0, 4, (9, 3))
    penalty_B = torch.rand(9)
    state = network.initial_state(9)
    stepped = []
    for site in range(3):
        q_BG, state = network.step(
            site, features_BLF[:, site], previous_BL[:, site], penalty_B, state
        )
        stepped.append(q_BG)
    whole_BLG = network(features_BLF, previous_BL, penalty_B)
    assert whole_BLG.shape == (9, 3, 3)
    torch.testing.assert_close(torch.stack(stepped, 1), whole_BLG, rtol=1e-5, atol=1e-6)


def test_values_depend_on_everything_the_network_is_shown() -> None:
    network = make()
    features_BLF, previous_BL, penalty_B = (
        torch.rand(1, 3, 6), torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0.1]),
    )  # fmt: skip
    before = network(features_BLF, previous_BL, penalty_B)
    seen_BLF = features_BLF.clone()
    seen_BLF[0, 0, 0] += 1  # the first site's features reach the last site's values
    assert not torch.equal(network(seen_BLF, previous_BL, penalty_B)[0, 2], before[0, 2])
    assert not torch.equal(network(features_BLF, previous_BL + 1, penalty_B), before)
    assert not torch.equal(network(features_BLF, previous_BL, penalty_B * 2), before)


def test_features_are_standardised_and_dead_ones_only_shifted() -> None:
    network = make()
    features_BLF = torch.zeros(4, 3, 6)
    features_BLF[:, 0, 0] = torch.tensor([1.0, 3.0, 1.0, 3.0])
    features_BLF[:, 0, 1] = 7.0
    network.standardise(features_BLF)
    assert network.feature_mean_LF[0].tolist() == [2, 7, 0, 0, 0, 0]
    assert network.feature_scale_LF[0].tolist() == [1] * 6  # deviation 1, then constants
    network.standardise(features_BLF * 10)
    assert network.feature_scale_LF[0].tolist() == pytest.approx([0.1, 1, 1, 1, 1, 1])


def test_no_penalty_is_the_smallest_penalty() -> None:
    network = make()
    rest = (torch.rand(1, 3, 6), torch.zeros(1, 3, dtype=torch.int64))
    none, least = network(*rest, torch.tensor([0.0])), network(*rest, torch.tensor([PENALTY_FLOOR]))
    assert torch.equal(none, least)
    assert none.isfinite().all()


def test_a_dueling_networks_advantages_have_mean_zero() -> None:
    network = make(dueling=True)
    with torch.no_grad():
        network.decode_LHG[..., -1] = 0
        network.decode_bias_LG[..., -1] = 5  # the state's worth
    q_BLG = network(torch.rand(4, 3, 6), torch.zeros(4, 3, dtype=torch.int64), torch.rand(4))
    assert q_BLG.shape[-1] == 3
    torch.testing.assert_close(q_BLG.mean(-1), torch.full((4, 3), 5.0))


@pytest.mark.parametrize(
    ("shape", "macs"),
    [
        # encoders (5 + 7 + 6) * 8 = 144; cell 3 * (8 + 7) * 7 = 315; decoder 7 * 3 = 21
        (SHAPES[0], 144 + 3 * (315 + 21)),
        (SHAPES[1], 144 + 3 * (315 + 28)),
        (SHAPES[2], 144 + 3 * (420 + 21)),
    ],
)
def test_macs_are_counted(shape: dict[str, object], macs: int) -> None:
    assert make(**shape).macs_per_image == macs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_widths": ()}, "feature_widths"),
        ({"groups": 1}, "groups >= 2.*1"),
        ({"hidden": 0}, "hidden >= 1.*0"),
        ({"cell": "rnn"}, "cell.*'rnn'"),
    ],
)
def test_bad_shapes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("batch", [1, 16])  # a compiled call where there is one, and a few
def test_the_deployed_form_chooses_the_same(cell: str, dueling: bool, batch: int) -> None:
    network = make(cell=cell, dueling=dueling, hidden=16)
    features_BLF = torch.rand(320, 3, 6) * 3 + torch.rand(6)
    network.standardise(features_BLF)
    for weight in network.parameters():
        torch.nn.init.normal_(weight)  # sharp choices, and biases that are not zero
    policy = DecisionPolicy(network, penalty=0.3)
    deployed = policy.deploy()
    assert deployed.name == policy.name
    folded = 3 * (network.config.encoder + dueling * network.config.hidden)  # penalties and worths
    assert deployed.macs_per_image == policy.macs_per_image - folded
    seen = set()
    for images_NLF in features_BLF.split(batch):
        one, other = policy.start(batch), deployed.start(batch)
        for site, width in enumerate((4, 6, 5)):
            features_BF = images_NLF[:, site, :width].contiguous()
            chosen_B = one.choose(site, features_BF)
            assert torch.equal(other.choose(site, features_BF), chosen_B)
            seen |= set(chosen_B.tolist())
    assert seen == {1, 2, 3}


def test_a_trained_network_runs_where_ray_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['ray'] = sys.modules['gymnasium'] = None\n"
        "import runtime_pruning.agents.policy, runtime_pruning.agents.decision_network"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("first", [-1, 3])
def test_one_site_at_least_is_decided(first: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= decides_from < 3.*got {first}"):
        make(decides_from=first)

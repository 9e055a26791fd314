"""The registered methods: settings that refuse, controls that report what they should."""

import copy
from typing import Any

import pytest
import torch

from runtime_pruning import backbones, methods
from runtime_pruning.config import build_config
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import RNPConfig, Task
from runtime_pruning.methods.rnp import reward_scale
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy


def task(**changes: Any) -> Task:
    data = load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=data.info.image_shape)
    network = trace(backbone, data.info.image_shape, groups=4, align=4)
    settings = {
        "network": network,
        "dense": copy.deepcopy(network),
        "data": data,
        "data_ref": None,
        "seed": 0,
    }
    return Task(**{**settings, **changes})


def reported(name: str, given: Task) -> list[tuple[list[int], bool]]:
    """Return the plan of each point that a control reports, and whether it is the dense network."""
    found = []

    def report(policy: FixedPolicy, network: Any, effort: Any, **_: Any) -> None:
        found.append((policy.groups_L.tolist(), network is given.dense))

    method = methods.get(name)
    method().fit(given, method.config_type(), report)
    return found


def test_fixed_width_reports_every_width_narrowest_first() -> None:
    assert reported("fixed-width", task()) == [([g] * 3, False) for g in (1, 2, 3, 4)]


def test_an_interrupted_control_reports_the_rest() -> None:
    assert reported("fixed-width", task(points_done=3)) == [([4, 4, 4], False)]
    assert reported("dense", task(points_done=1)) == []


def test_dense_reports_the_network_from_before_any_width_training() -> None:
    assert reported("dense", task()) == [([4, 4, 4], True)]


def test_fixed_width_takes_statistics_anew_for_each_width() -> None:
    given = task()
    given.network.condition_batch_norm()
    norm = given.network.backbone.bn2
    before = norm.running_mean.clone()
    reported("fixed-width", given)
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": -0.1}, "`0 <= penalty < inf` must hold, but got -0.1."),
        ({"penalty": float("nan")}, "`0 <= penalty < inf` must hold, but got nan."),
        ({}, "penalty: Field required"),
        ({"penalty": {"low": 2, "high": 1}}, "`0 <= low <= high < inf` must hold"),
        ({"penalty": {"low": 0, "high": 1}}, "needs `low > 0`, but got 0 to 1.0"),
        ({"penalty": {"low": 1, "high": 2}, "dials": 0}, "`dials >= 1` must hold, but got 0."),
        ({"penalty": 1, "dials": 4}, "must be a range, low to high, for `dials` to divide, but"),
        (
            {"penalty": 1, "finetune_distillation": 2},
            "`0 <= finetune_distillation <= 1` must hold, but got 2.",
        ),
        ({"penalty": 1, "rounds": 0}, "`rounds >= 1` must hold, but got 0."),
        ({"penalty": 1, "exploration": 0}, "it is `settings.agent.epsilon.share` now."),
        ({"penalty": 1, "agent": {"epsilon": {"share": 0}}}, "`share > 0` must hold, but got 0."),
        ({"penalty": 1, "agent": {"algorithm": "dqnn"}}, "No algorithm is called 'dqnn'. Did you"),
        ({"penalty": 1, "finetune_lr": 0}, "`finetune_lr > 0` must hold, but got 0."),
        ({"penalty": 1, "cost": "flops"}, "No cost is called 'flops'."),
        ({"penalty": 1, "agent": {"gamma": 2}}, "`0 < gamma <= 1` must hold, but got 2."),
        ({"penalty": 1, "agent": {"gama": 1}}, "has no setting 'gama'. Did you mean 'gamma'?"),
    ],
)
def test_rnp_refuses_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(RNPConfig, settings, where="rnp")
    assert message in str(caught.value)


def test_rewards_are_scaled_to_a_mean_loss_of_one() -> None:
    given = task()
    # An untrained network of ten classes loses about ln 10 = 2.3 nats an image.
    alpha = reward_scale(given.network, given.data.policy, seed=0)
    assert 1 / alpha == pytest.approx(2.303, rel=0.1)
    assert alpha == reward_scale(given.network, given.data.policy, seed=0)

"""The registered methods: settings that refuse, controls that report what they should."""

from typing import Any

import pytest
from controls import task

from runtime_pruning.config import build_config
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods import RNPConfig
from runtime_pruning.methods.rnp import reward_scale


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

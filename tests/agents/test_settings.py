"""DQN's settings: values out of range and settings that went elsewhere are refused."""

import pytest

from runtime_pruning.agents.settings import DQNSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, r"lr > 0.*0\.0"),
        ({"gamma": 1.5}, r"0 < gamma <= 1.*1\.5"),
        ({"batch_episodes": 0}, "batch_episodes >= 1"),
        ({"sample_timeout_s": 0}, "sample_timeout_s > 0.*0"),
        ({"driver_threads": 0}, "driver_threads >= 1.*0"),
        ({"loss": "l1"}, "loss: Input should be 'huber' or 'mse'"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DQNSettings(**changes)

"""A sweep whose settings are faulty is refused in one sentence."""

from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trails=3"], "has no setting 'trails'. Did you mean 'trials'?"),
        (["prepare.pad=-1"], "`pad >= 0` must hold, but got -1."),
        (["trials=0"], "`trials >= 1` must hold, but got 0."),
        (["trials"], "A setting is given as `key=value`, but got 'trials'."),
        (["search.penalty={low: 2, high: 1}"], "`low <= high` must hold"),
        (["search.penalty={low: 0, high: 1, scale: log}"], "`low > 0` must hold on a log scale"),
        (["search={penalty: {low: 1, high: 2}}"], "`search` must name the group counts"),
        (["trials.x=3"], "'trials' holds no settings of its own"),
    ],
)
def test_faulty_settings_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("digits", PRESETS, overrides)
    assert message in str(caught.value)


def test_group_counts_must_be_whole_numbers_of_at_least_two() -> None:
    for faulty in ("[1, 2]", "[2.5]", "{low: 2, high: 4}"):
        sweep = load_preset("digits", PRESETS, [f"search.groups={faulty}"])
        with pytest.raises(ConfigError, match="whole numbers >= 2"):
            _ = sweep.group_counts

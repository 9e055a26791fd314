"""The exploration schedule: in decisions, or as a share of a training."""

import pytest

from runtime_pruning.agents.schedule import EpsilonSchedule


def test_exploration_falls_linearly_and_is_held() -> None:
    schedule = EpsilonSchedule(start=1.0, end=0.1, steps=100)
    shares = [schedule.at(step) for step in (0, 50, 100, 1000)]
    assert shares == pytest.approx([1.0, 0.55, 0.1, 0.1])


def test_a_share_is_one_of_a_trainings_decisions_and_steps_are_kept() -> None:
    assert EpsilonSchedule(share=0.2).over(1000).steps == 200
    assert EpsilonSchedule().over(1000).steps == 500
    assert EpsilonSchedule(steps=7).over(1000).steps == 7
    with pytest.raises(ValueError, match="must name `steps` where the number of episodes"):
        EpsilonSchedule().over(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 1.1}, r"0 <= end <= 1.*1\.1"),
        ({"steps": 0}, "steps >= 1.*0"),
        ({"share": 0}, "share > 0.*0"),
        ({"share": 0.5, "steps": 9}, r"Either `share` or `steps`.*0\.5 and 9"),
    ],
)
def test_bad_schedules_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpsilonSchedule(**changes)

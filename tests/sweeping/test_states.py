"""What is kept for trials to go on from."""

from pathlib import Path

from runtime_pruning.places import Place
from runtime_pruning.sweeping.states import KEPT_SECONDS, States


def points_of(folder: Path, count: int) -> list[str]:
    """Make points with a state each; return their paths."""
    made = [folder / f"checkpoint_00000{number}" for number in range(count)]
    for point in made:
        (point / "state").mkdir(parents=True)
        (point / "state" / "network.safetensors").touch()
        (point / "point.json").touch()
    return [str(point) for point in made]


def kept(points: list[str]) -> list[bool]:
    assert all((Path(point) / "point.json").exists() for point in points)
    return [(Path(point) / "state").exists() for point in points]


def test_a_state_goes_when_the_next_point_is_in_tunes_snapshot_for_sure(tmp_path: Path) -> None:
    now = 0.0
    states = States(Place.at(tmp_path), lambda: now)
    one, other = (points_of(tmp_path / "trials" / name, 4) for name in ("a", "b"))
    for point in one[:3]:
        states.add(point)
    states.add(other[0])
    assert kept(one) == [True] * 4  # all within seconds: a snapshot may know the first only
    now = KEPT_SECONDS
    states.add(one[3])
    assert kept(one) == [False, False, True, True]
    assert kept(other) == [True] * 4  # another trial's time is not this one's


def test_an_ended_trial_keeps_none_and_a_failed_one_its_last(tmp_path: Path) -> None:
    states = States(Place.at(tmp_path))
    one, other = (points_of(tmp_path / "trials" / name, 3) for name in ("a", "b"))
    states.end([f"trials/a/{Path(point).name}" for point in one], failed=False)
    states.end(other, failed=True)
    assert kept(one) == [False] * 3
    assert kept(other) == [False, False, True]
    states.end(one, failed=False)  # a second start sees them again

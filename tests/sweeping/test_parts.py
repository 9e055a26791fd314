"""Trials that are added to a sweep, and what is refused."""

from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.places import Place
from runtime_pruning.sweeping.parts import Part, Parts


def test_trials_are_added_to_an_ended_sweep_once_for_one_command(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    first = Parts.open(place, 6)
    assert list(first) == [Part(0, 6)]
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match=f"`extend >= 1` must hold, but got {wrong}"):
            Parts.open(place, 6, wrong)
    with pytest.raises(ConfigError, match="still has some of 6 to run"):
        Parts.open(place, 6, 4)
    first.end(Part(0, 6))
    extended = Parts.open(place, 6, 4)
    assert [(part.folder, part.trials) for part in extended] == [("trials", 6), ("trials-2", 4)]
    # Interrupted: with --extend or without it, the same trials go on.
    assert list(Parts.open(place, 6, 4)) == list(Parts.open(place, 6)) == list(extended)
    with pytest.raises(ConfigError, match="still has some of 10 to run"):
        Parts.open(place, 6, 3)
    for part in extended:
        extended.end(part)
    assert Parts.open(place, 6, 4).trials == 14

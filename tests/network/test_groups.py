"""Group bounds by hand, and what they keep to at any width."""

import itertools

import pytest

from runtime_pruning.errors import ConfigError
from runtime_pruning.network import group_bounds
from runtime_pruning.network.groups import largest_fitting_alignment


@pytest.mark.parametrize(
    ("channels", "groups", "align", "bounds"),
    [
        (64, 4, 8, (0, 16, 32, 48, 64)),
        (16, 4, 8, (0, 4, 8, 12, 16)),  # two blocks of 8 are too few: blocks of 4
        (24, 4, 8, (0, 8, 12, 20, 24)),  # six blocks of 4: 1.5, 3, 4.5, 6, rounded up
        (20, 2, 8, (0, 8, 20)),  # two blocks of 8, the last takes what is left
        (5, 5, 8, (0, 1, 2, 3, 4, 5)),
        (12, 1, 8, (0, 12)),
        (7, 2, 1, (0, 4, 7)),
    ],
)
def test_bounds(channels: int, groups: int, align: int, bounds: tuple[int, ...]) -> None:
    assert group_bounds(channels, groups, align) == bounds


@pytest.mark.parametrize("align", [1, 4, 6, 8])
def test_bounds_rise_and_are_aligned_whatever_the_width(align: int) -> None:
    for channels in range(1, 70):
        for groups in range(1, min(channels, 9) + 1):
            bounds = group_bounds(channels, groups, align)
            used = largest_fitting_alignment(channels, groups, align)
            assert (bounds[0], bounds[-1], len(bounds)) == (0, channels, groups + 1)
            assert all(a < b for a, b in itertools.pairwise(bounds))
            assert all(bound % used == 0 for bound in bounds[:-1])


def test_more_groups_than_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`groups <= channels` must hold.*groups=4, channels=3"):
        group_bounds(3, 4, 8)
    with pytest.raises(ConfigError, match=r"must each be >= 1.*groups=0"):
        group_bounds(3, 0, 8)

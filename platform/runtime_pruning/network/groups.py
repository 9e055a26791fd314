"""Group bounds: how many channels run with so many groups."""

from runtime_pruning.errors import ConfigError


def largest_fitting_alignment(channels: int, groups: int, align: int) -> int:
    """Return the largest of align, align / 2, ... 1 of which ``groups`` multiples fit."""
    while align > 1 and channels // align < groups:
        align //= 2
    return align


def group_bounds(channels: int, groups: int, align: int) -> tuple[int, ...]:
    """Return how many channels run with 0, 1, ... ``groups`` groups.

    Bounds are multiples of the alignment, or of the largest half, quarter, ... of it that fits; the
    last is ``channels``. They rise strictly and are as even as that allows, larger first.

    Raises:
        ConfigError: a number below one, or more groups than channels.
    """
    if min(channels, groups, align) < 1:
        raise ConfigError(
            "`channels`, `groups` and `align` must each be >= 1, "
            f"but got (channels={channels}, groups={groups}, align={align})."
        )
    if groups > channels:
        raise ConfigError(
            f"`groups <= channels` must hold, but got (groups={groups}, channels={channels})."
        )
    align = largest_fitting_alignment(channels, groups, align)
    coupled_channels = channels // align
    inner = [align * -(-coupled_channels * group // groups) for group in range(groups)]
    return (*inner, channels)

"""A network of two sites, and a latency table of it by hand."""

from torch import Tensor, nn

from runtime_pruning.cost.latency import FIXED, LatencyTable, Row
from runtime_pruning.cost.timed_units import network_key
from runtime_pruning.network import PrunableNetwork, trace

DIGITS = (1, 8, 8)


class Two(nn.Module):
    """A first convolution, two sites, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv2(self.conv1(self.first(images)).relu()).mean((2, 3)))


NETWORK = trace(Two(), DIGITS, groups=2, align=4).eval()


def table_of(network: PrunableNetwork, entries: list[tuple[object, ...]]) -> LatencyTable:
    """Return a table from (unit, stage, input sites, output sites, widths, ms)."""
    rows = [
        Row(str(unit), "any", stage, i, o, *widths, 1, "float32", 1, 5, ms)  # type: ignore[arg-type]
        for unit, stage, i, o, widths, ms in entries
    ]
    key = network_key(network)
    return LatencyTable(tuple(rows), "here", key, "two", len(network.sites), {"cpu": "x"}, {})


# Widths of both sites: 4 and 8.
BY_HAND = table_of(
    NETWORK,
    [
        (FIXED, 0, (), (), (0, 0), 0.5),
        ("first", 0, (), (), (1, 4), 1.0),
        ("conv1", 1, (), (0,), (4, 4), 2.0),
        ("conv1", 1, (), (0,), (4, 8), 4.0),
        ("conv2", 2, (0,), (1,), (4, 4), 1.0),
        ("conv2", 2, (0,), (1,), (4, 8), 2.0),
        ("conv2", 2, (0,), (1,), (8, 4), 3.0),
        ("conv2", 2, (0,), (1,), (8, 8), 7.0),
        ("linear", 2, (1,), (), (4, 10), 0.25),
        ("linear", 2, (1,), (), (8, 10), 0.5),
    ],
)

"""The dial of a bundle: a budget becomes a place between two of its stops.

Between two measured stops no third one is invented: each image is dealt to one of the two, the
dearer one for the share of images that the budget allows. So what is expected in the mean is what
was measured, in the shares of the two; cost and accuracy rise along the dial, and so does each
single image's stop. An image is dealt by its own pixels: the same image gets the same answer alone,
in a batch, in any order, and on any machine.

Dimensions: B images, S stops on the dial.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from runtime_pruning.deploy.card import Stop
from runtime_pruning.errors import ConfigError

BudgetKind = Literal["penalty", "macs", "ms"]


@dataclass(frozen=True)
class Budget:
    """What an image may cost in the mean.

    Attributes:
        kind: ``macs`` are executed MACs per image, ``ms`` milliseconds of an image alone on this
            device, ``penalty`` what a decision network is told that MACs are worth.
        value: finite and not below zero.
    """

    kind: BudgetKind
    value: float

    def __post_init__(self) -> None:
        low = "0 <=" if self.kind == "penalty" else "0 <"
        inside = self.value >= 0 if self.kind == "penalty" else self.value > 0
        if not (inside and math.isfinite(self.value)):
            raise ConfigError(f"`{low} {self.kind} < inf` must hold, but got {self.value:g}.")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Return the budget that a text such as ``macs=2e7``, ``ms=3.5`` or ``penalty=0.4`` says.

        Raises:
            ConfigError: it says none.
        """
        kind, equals, number = text.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if kind not in get_args(BudgetKind) or not equals or math.isnan(value):
            raise ConfigError(
                f"A budget is macs=NUMBER, ms=NUMBER or penalty=NUMBER, but got {text!r}."
            )
        return cls(kind, value)  # type: ignore[arg-type]


class Dial:
    """The stops that no other beats, by ascending cost; positions go from 0 to S - 1.

    Args:
        stops: of a card.
        device: key of this device: a budget in milliseconds is one of it.
    """

    def __init__(self, stops: Sequence[Stop], device: str) -> None:
        best = -1.0
        self.places: list[int] = []  # of the dial's stops, among those of the card
        for place, stop in enumerate(stops):
            if stop.accuracy[1] > best:
                self.places.append(place)
                best = stop.accuracy[1]
        self._stops = [stops[place] for place in self.places]
        self._device = device

    def __len__(self) -> int:
        """Return S."""
        return len(self._stops)

    def position(self, budget: Budget) -> float:
        """Return the greatest position that a budget allows, in [0, S - 1].

        Raises:
            ConfigError: less than the cheapest stop needs, a penalty outside those of the stops, or
                the dial knows nothing of the budget's unit.
        """
        if budget.kind == "penalty":
            return self._at_penalty(budget.value)
        costs = self.macs if budget.kind == "macs" else self.milliseconds
        if budget.value < costs[0]:
            raise ConfigError(
                f"`{budget.kind} >= {costs[0]:.4g}` must hold, which the cheapest stop of this "
                f"bundle needs, but got {budget.value:g}."
            )
        return place_of(costs, budget.value)

    @property
    def macs(self) -> list[float]:
        """Mean executed MACs per image at each stop, ascending."""
        return [stop.macs_per_image[1] for stop in self._stops]

    @property
    def accuracy(self) -> list[float]:
        """Expected accuracy at each stop, ascending."""
        return [stop.accuracy[1] for stop in self._stops]

    @property
    def milliseconds(self) -> list[float]:
        """Median latency of one image at each stop; a dearer stop is never said to be faster.

        Raises:
            ConfigError: a stop was not timed on this device.
        """
        spent: list[float] = []
        for stop in self._stops:
            latency = stop.latency_ms(self._device)
            if latency is None:
                raise ConfigError(
                    f"A budget in ms needs times of every stop on this device ({self._device}), "
                    "which this bundle lacks: export it here with --time, or give macs=NUMBER."
                )
            spent.append(max([latency, *spent]))
        return spent

    def _at_penalty(self, penalty: float) -> float:
        """Return the position of a penalty: a higher one is cheaper."""
        told = [stop.penalty for stop in self._stops]
        known = [each for each in told if each is not None]
        if len(known) < len(told) or known != sorted(known, reverse=True):
            raise ConfigError("The stops of this bundle were told no penalties: give macs=NUMBER.")
        if not known[-1] <= penalty <= known[0]:
            raise ConfigError(
                f"`{known[-1]:g} <= penalty <= {known[0]:g}` must hold, within which this bundle "
                f"was measured, but got {penalty:g}."
            )
        return place_of([-_log(each) for each in known], -_log(penalty))

    def expected(self, costs: Sequence[float], position: float) -> float:
        """Return the mean cost, or accuracy, at a position."""
        below = min(int(position), len(self) - 1)
        above = min(below + 1, len(self) - 1)
        share = position - below
        return (1 - share) * costs[below] + share * costs[above]

    def deal(self, images_BCHW: Tensor, position: float) -> Tensor:
        """Return ``stops_B``, int64, by number on the card.

        Raises:
            ConfigError: a position outside the dial.
        """
        if not 0 <= position <= len(self) - 1:
            raise ConfigError(
                f"`0 <= position <= {len(self) - 1}` must hold, but got {position:g}."
            )
        below = int(position)
        share = position - below
        draws = [draw(image_CHW) for image_CHW in images_BCHW] if share else [1.0]
        dealt = [below + (each < share) for each in draws] * (1 if share else len(images_BCHW))
        return torch.tensor([self.places[place] for place in dealt])


def draw(image_CHW: Tensor) -> float:
    """Return a number in [0, 1) that an image's pixels give, evenly spread over images."""
    return zlib.crc32(image_CHW.contiguous().numpy().tobytes()) / 2**32


def place_of(costs: Sequence[float], budget: float) -> float:
    """Return the greatest position at which piecewise-linear, ascending costs keep to a budget."""
    below = max(place for place, cost in enumerate(costs) if cost <= budget)
    if below == len(costs) - 1:
        return float(below)
    return below + (budget - costs[below]) / (costs[below + 1] - costs[below])


def _log(penalty: float) -> float:
    """Return a penalty on a scale that begins at 0 and is logarithmic far from there."""
    return math.log1p(1000 * penalty)

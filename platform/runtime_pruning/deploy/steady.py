"""A bundle that keeps to a latency while its input changes: the dial turns by itself.

What an image takes is the dial's expected cost times a factor: of this machine, of its load, and of
how hard the images are that come. Each batch shows the factor, and the dial is put where the
expected cost times the factor is the target. For a target of the mean the factor is a running mean
with a memory of a few batches, so that the remaining error falls by the same share per batch; for a
quantile it is that quantile of the factors of the last batches, so that the dial turns down at once
and up again only when the memory has gone.

Dimensions: S stops on the dial.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from runtime_pruning.deploy.budget import Dial, place_of
from runtime_pruning.deploy.images import Images, prepare
from runtime_pruning.deploy.shipped import Prediction, ShippedBundle
from runtime_pruning.errors import ConfigError

MEMORY = 20  # batches that a quantile is taken of
WEIGHT = 0.3  # of the newest batch in the running mean: 0.7 of an error is left after each

Clock = Callable[[], float]


class Controller:
    """Turns a dial so that a latency is held.

    Args:
        dial: of a bundle.
        costs: expected cost at each stop, ascending, in any unit: MACs do where nothing was timed.
        target_ms: of an image, in ms.
        quantile: of batches that shall keep to the target, such as 0.95; None holds the mean.

    Raises:
        ConfigError: a target that is not above zero, or a quantile outside (0, 1).

    Attributes:
        position: of the dial, for the next batch; the cheapest until a batch was seen.
    """

    def __init__(
        self,
        dial: Dial,
        costs: Sequence[float],
        target_ms: float,
        *,
        quantile: float | None = None,
    ) -> None:
        if not 0 < target_ms < float("inf"):
            raise ConfigError(f"`0 < target_ms < inf` must hold, but got {target_ms:g}.")
        if quantile is not None and not 0 < quantile < 1:
            raise ConfigError(f"`0 < quantile < 1` must hold, but got {quantile:g}.")
        self._dial, self._costs = dial, list(costs)
        self._target_ms, self._quantile = target_ms, quantile
        self._factors: deque[float] = deque(maxlen=MEMORY)
        self._mean = 0.0
        self.position = 0.0

    def saw(self, ms_per_image: float) -> None:
        """Take note of what images of a batch took at the present position; turn the dial."""
        factor = ms_per_image / self._dial.expected(self._costs, self.position)
        self._mean += (WEIGHT if self._factors else 1.0) * (factor - self._mean)
        self._factors.append(factor)
        held = self._mean
        if self._quantile is not None:
            held = float(np.quantile(self._factors, self._quantile, method="higher"))
        # A target that not even the cheapest stop keeps to gets that stop.
        self.position = place_of(self._costs, max(self._target_ms / held, self._costs[0]))


class SteadyBundle:
    """Predicts at a latency; for one thread.

    Args:
        shipped: the bundle.
        target_ms: of an image, in ms: time of a batch over its images.
        quantile: see `Controller`.
        clock: seconds, ever growing.
    """

    def __init__(
        self,
        shipped: ShippedBundle,
        target_ms: float,
        *,
        quantile: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.shipped = shipped
        self.controller = Controller(shipped.dial, shipped.dial.macs, target_ms, quantile=quantile)
        self._clock = clock

    def predict(self, images: Images) -> Prediction:
        """Answer a batch; how long it takes tells how to answer the next."""
        images_BCHW = prepare(images, self.shipped.card.preprocessing)
        start = self._clock()
        found = self.shipped.run(images_BCHW, self.controller.position)
        self.controller.saw(1e3 * (self._clock() - start) / len(images_BCHW))
        return found

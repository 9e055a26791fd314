"""An exported operating point at work: images in, labels, probabilities and compute out.

Dimensions: B images, K classes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from runtime_pruning.deploy.budget import Budget, Dial
from runtime_pruning.deploy.card import CHECK, Card, read_card
from runtime_pruning.deploy.deployed import deploy_bundle
from runtime_pruning.deploy.images import Images, prepare
from runtime_pruning.deploy.reading import AnyBundle, read_bundle
from runtime_pruning.deploy.stops import read_stop
from runtime_pruning.errors import DataError
from runtime_pruning.network import Answered
from runtime_pruning.timing.device import this_device

PART = 256  # images that run together at most
TOLERANCE = 1e-3  # of the greatest logit

Run = Callable[[Tensor], Answered]


@dataclass(frozen=True)
class Prediction:
    """What a bundle answers to some images.

    Attributes:
        classes: names of all classes.
        probabilities_BK: calibrated, float32.
        macs_B: executed MACs, those of whatever decided included, int64.
        stops_B: which stop of the card answered, int64.
    """

    classes: tuple[str, ...]
    probabilities_BK: Tensor
    macs_B: Tensor
    stops_B: Tensor

    @property
    def numbers_B(self) -> Tensor:
        """The likeliest classes, int64."""
        return self.probabilities_BK.argmax(1)

    @property
    def labels(self) -> list[str]:
        """The likeliest classes by name."""
        return [self.classes[number] for number in self.numbers_B.tolist()]


def load_bundle(path: str | Path, *, check: bool = True) -> "ShippedBundle":
    """Return an exported bundle, ready to predict on this machine's CPU. It needs no Ray.

    Args:
        path: the folder that `runtime-pruning export` wrote.
        check: compute the batch that was stored at export again, and refuse another answer.

    Raises:
        DataError: no such bundle, one of another version, a damaged one, or one that does not
            answer here as it did where it was exported.
    """
    folder = Path(path)
    shipped = ShippedBundle(folder, read_card(folder))
    if check:
        shipped.check()
    return shipped


class ShippedBundle:
    """Predicts; threads may do so at the same time.

    Args:
        folder: of the bundle.
        card: of that folder.

    Attributes:
        card: what is expected of it.
        dial: what budgets it knows.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self.card = card
        self.dial = Dial(card.stops, this_device().key)
        self._folder = folder
        self._runs: dict[int, Run] = {}
        self._lock = threading.Lock()

    def predict(self, images: Images, budget: str | Budget | None = None) -> Prediction:
        """Return labels, probabilities and the compute spent.

        Args:
            images: files, bytes or Pillow's images, which are prepared as the dataset's were; or
                pixels that are.
            budget: what an image may cost in the mean, such as ``"macs=2e7"``, ``"ms=3.5"`` or
                ``"penalty=0.4"``; the exported point if absent.

        Raises:
            DataError: images that cannot be used.
            ConfigError: a budget that this bundle cannot keep to.
        """
        position = None if budget is None else self.position(budget)
        return self.run(prepare(images, self.card.preprocessing), position)

    def position(self, budget: str | Budget) -> float:
        """Return where a budget puts the dial; see `Dial.position`."""
        return self.dial.position(Budget.parse(budget) if isinstance(budget, str) else budget)

    def run(self, images_BCHW: Tensor, position: float | None = None) -> Prediction:
        """Predict prepared images at a position of the dial, or by the exported point."""
        if position is None:
            stops_B = torch.full((len(images_BCHW),), self.card.chosen)
        else:
            stops_B = self.dial.deal(images_BCHW, position)
        logits_BK = torch.empty(len(images_BCHW), len(self.card.classes))
        macs_B = torch.empty(len(images_BCHW), dtype=torch.int64)
        for stop in sorted(set(stops_B.tolist())):
            for rows in torch.split((stops_B == stop).nonzero()[:, 0], PART):
                found = self.runner(stop)(images_BCHW[rows])
                logits_BK[rows], macs_B[rows] = found.logits_BK.float(), found.total_macs_B
        probabilities_BK = (logits_BK / self.card.temperature).softmax(1)
        return Prediction(self.card.classes, probabilities_BK, macs_B, stops_B)

    def runner(self, stop: int) -> Run:
        """Return what answers images at one stop; it is read when it is first asked for."""
        with self._lock:
            if stop not in self._runs:
                self._runs[stop] = deploy_bundle(self.bundle(stop)).execute
            return self._runs[stop]

    def bundle(self, stop: int | None = None) -> AnyBundle:
        """Return the network and the policy of one stop, or of the exported point, read anew."""
        place = self.card.stops[self.card.chosen if stop is None else stop].folder
        if place == ".":
            return read_bundle(self._folder)
        return read_stop(self._folder, self._folder / place)

    def check(self) -> None:
        """Hold this machine's answers against those that were stored at export.

        Raises:
            DataError: says what differs.
        """
        stored = load_file(self._folder / CHECK)
        found = self.runner(self.card.chosen)(prepare(stored["images_BCHW"], self._how))
        off = (found.logits_BK - stored["logits_BK"]).abs().max()
        allowed = TOLERANCE * float(stored["logits_BK"].abs().max())
        faults = {
            f"logits are off by {float(off):.2g}, {allowed:.2g} is allowed": not off <= allowed,
            "executed MACs differ": not torch.equal(found.total_macs_B, stored["macs_B"]),
        }
        if wrong := [fault for fault, is_so in faults.items() if is_so]:
            raise DataError(
                "The bundle does not answer here as it did where it was exported: "
                f"{'; '.join(wrong)}."
            )

    @property
    def _how(self) -> Any:
        return self.card.preprocessing

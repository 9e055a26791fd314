"""The dial that turns by itself, on a device whose time is its MACs: a deterministic clock."""

import numpy as np
import pytest
import torch

from exported_bundle import Exported
from runtime_pruning.datasets import to_float
from runtime_pruning.deploy.budget import Dial
from runtime_pruning.deploy.shipped import Prediction, ShippedBundle
from runtime_pruning.deploy.steady import MEMORY, Controller, SteadyBundle
from runtime_pruning.errors import ConfigError

BATCH, SETTLED = 100, 10  # images; batches after which the mean is back within 5 % of the target


HARDER = 1.3  # times the time that an easy image takes
BRIGHT = 0.305  # the mean of the digits


class Device(ShippedBundle):
    """A bundle on a device that takes a nanosecond for a MAC, and longer for bright images."""

    now = 0.0

    def run(self, images_BCHW: torch.Tensor, position: float | None = None) -> Prediction:
        found = super().run(images_BCHW, position)
        hard_B = images_BCHW.mean((1, 2, 3)) > BRIGHT
        self.now += 1e-9 * float((found.macs_B * torch.where(hard_B, HARDER, 1.0)).sum())
        return found


def easy_and_hard(exported: Exported) -> tuple[np.ndarray, np.ndarray]:
    """Return images that take their MACs' time, and images that take longer."""
    data = exported.data
    images_NCHW = np.concatenate([s.images_NCHW for s in (data.training, data.test)])
    hard_N = (to_float(images_NCHW).mean((1, 2, 3)) > BRIGHT).numpy()
    return images_NCHW[~hard_N], images_NCHW[hard_N]


@pytest.fixture(scope="module")
def mix(exported: Exported) -> list[torch.Tensor]:
    """Forty batches of easy images, then forty of hard ones, then of easy ones again."""
    easy, hard = easy_and_hard(exported)
    rng = np.random.default_rng(0)
    assert min(len(easy), len(hard)) >= BATCH
    return [
        to_float(images[rng.choice(len(images), BATCH)])
        for images in (easy, hard, easy)
        for _ in range(40)
    ]


def served(steady: SteadyBundle, mix: list[torch.Tensor]) -> np.ndarray:
    """Return the ms of an image in each batch."""
    spent = []
    for images_BCHW in mix:
        before = steady.shipped.now  # type: ignore[attr-defined]
        steady.predict(images_BCHW)
        spent.append(1e3 * (steady.shipped.now - before) / BATCH)  # type: ignore[attr-defined]
    return np.array(spent)


def steady_on(exported: Exported, target_ms: float, quantile: float | None) -> SteadyBundle:
    device = Device(exported.folder, exported.card)
    return SteadyBundle(device, target_ms, quantile=quantile, clock=lambda: device.now)


def test_the_mean_is_back_within_5_percent_after_ten_batches(
    exported: Exported, mix: list[torch.Tensor]
) -> None:
    narrow, twice, _ = Dial(exported.card.stops, "").macs
    target_ms = 1e-6 * (narrow + 0.8 * (twice - narrow))
    spent = served(steady_on(exported, target_ms, None), mix)
    for start in (0, 40, 80):
        after = spent[start + SETTLED : start + 40]
        assert abs(after.mean() / target_ms - 1) < 0.05
    device = Device(exported.folder, exported.card)
    position = device.position(f"macs={1e6 * target_ms}")
    fixed = []
    for images in mix:
        before = device.now
        device.run(images, position)
        fixed.append(1e3 * (device.now - before) / BATCH)
    off = [abs(np.mean(fixed[start + SETTLED :][:30]) / target_ms - 1) for start in (0, 40)]
    assert max(off) > 0.1  # a dial that stays where it was put


def test_a_quantile_is_kept_to(exported: Exported, mix: list[torch.Tensor]) -> None:
    narrow, twice, _ = Dial(exported.card.stops, "").macs
    target_ms = 1e-6 * (narrow + 0.8 * (twice - narrow))
    spent = served(steady_on(exported, target_ms, 0.95), mix)
    late = np.concatenate([spent[start + MEMORY : start + 40] for start in (0, 40, 80)])
    assert np.quantile(late, 0.9) <= target_ms * 1.05
    assert late.mean() > target_ms * 0.7  # and does not run idle


def test_what_cannot_be_held_gets_the_cheapest_stop(exported: Exported) -> None:
    dial = Dial(exported.card.stops, "")
    controller = Controller(dial, dial.macs, 1e-12)
    controller.saw(5.0)
    assert controller.position == 0
    idle = Controller(dial, dial.macs, 1e9)
    idle.saw(5.0)
    assert idle.position == len(dial) - 1


@pytest.mark.parametrize(("target", "quantile"), [(0, None), (-1, None), (1, 0), (1, 1.5)])
def test_a_target_that_is_none_is_refused(
    exported: Exported, target: float, quantile: float | None
) -> None:
    dial = Dial(exported.card.stops, "")
    with pytest.raises(ConfigError, match="must hold"):
        Controller(dial, dial.macs, target, quantile=quantile)

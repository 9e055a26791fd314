"""LPNet: a small network that predicts how long a network of any widths takes on this device.

It learns from measurements (`width_timing`), is held against others that it did not see, and is
differentiable in the widths: gates can be trained on the milliseconds that they cost.
Source: Li et al., "Weight-dependent Gates for Network Pruning", 2020: three linear layers, trained
on random sub-networks, split 80 to 20. Ours reads the MACs beside the widths, and predicts the
logarithm of the time over the dense network's.

Dimensions: P configurations, G groups of channels, F features.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.stats import kendalltau
from torch import Tensor, nn

from runtime_pruning.cost.latency_cost import CALIBRATION_ENV
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.cost.width_timing import WidthTimings, covering_widths, time_widths
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.executor import deploy
from runtime_pruning.files import save_tensors, write_text
from runtime_pruning.network.structure import structure_key
from runtime_pruning.network.surgery import PrunableGroup
from runtime_pruning.network.tracing import trace

_LR, _DECAY, _HIDDEN = 0.01, 1.0, 64
_HELD_OUT = 0.2  # share of the configurations


class WidthCost(Protocol):
    """What a backbone costs at any widths of its groups: MACs, milliseconds, or a user's own."""

    @property
    def groups(self) -> tuple[PrunableGroup, ...]:
        """The channels that can be removed."""

    @property
    def dense(self) -> float:
        """What all of them cost."""

    def __call__(self, widths_G: Sequence[Any]) -> Any:
        """Return the cost: a number, or a tensor with gradients where the widths are such."""


@dataclass(frozen=True)
class HeldOutError:
    """How well configurations are predicted that were not learned from.

    Attributes:
        mape: mean absolute error as a share of what was measured.
        kendall_tau: rank correlation, in [-1, 1].
        configurations: how many.
        measured_ms, predicted_ms: of each.
    """

    mape: float
    kendall_tau: float
    configurations: int
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]

    def __str__(self) -> str:
        return (
            f"{self.configurations} unseen configurations: MAPE {self.mape:.1%}, Kendall's tau "
            f"{self.kendall_tau:.2f}"
        )


class LPNet(nn.Module):
    """Three linear layers from widths and MACs to the logarithm of time over the dense one's."""

    mean_F: Tensor
    scale_F: Tensor

    def __init__(self, features: int, hidden: int = _HIDDEN) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))
        self.layers = nn.Sequential(
            *(nn.Linear(features, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, 1),
        )

    def forward(self, features_PF: Tensor) -> Tensor:
        """Return ``log_ratio_P``."""
        scaled_PF = (features_PF - self.mean_F) / self.scale_F
        result: Tensor = self.layers(scaled_PF)[:, 0]
        return result


class LatencyPredictor:
    """Milliseconds of a backbone on one device, at any widths of its groups: a `WidthCost`.

    Args:
        lpnet: trained.
        macs: of the backbone.
        dense: milliseconds of the dense network.
        facts: device, batch, how it was made and how well it predicts.
    """

    def __init__(self, lpnet: LPNet, macs: PrunedMacs, dense: float, facts: dict[str, Any]) -> None:
        self.lpnet, self.macs, self.dense, self.facts = lpnet.eval(), macs, dense, facts
        for parameter in lpnet.parameters():
            parameter.requires_grad_(False)

    @property
    def groups(self) -> tuple[PrunableGroup, ...]:
        """The channels that can be removed."""
        return self.macs.groups

    def __call__(self, widths_G: Sequence[Any]) -> Any:
        """Return milliseconds of one call.

        Args:
            widths_G: channels kept of each group; numbers, or tensors without dimensions.
        """
        given = [width for width in widths_G if isinstance(width, Tensor)]
        told_G = torch.stack([torch.as_tensor(width).float() for width in widths_G])
        ms = self._ms(told_G[None])[0]
        return ms if given else float(ms)

    def _ms(self, widths_PG: Tensor) -> Tensor:
        log_ratio_P: Tensor = self.lpnet.to(widths_PG.device)(features_of(self.macs, widths_PG))
        return self.dense * log_ratio_P.exp()

    def save(self, stem: Path) -> None:
        """Write ``stem.safetensors`` and ``stem.json``."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(self.lpnet.state_dict(), stem.with_suffix(".safetensors"))
        facts = {"dense_ms": self.dense, **self.facts}
        write_text(stem.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, stem: Path, macs: PrunedMacs) -> "LatencyPredictor":
        """Return what `save` wrote.

        Args:
            stem: path without a suffix.
            macs: of the backbone that it was made for.

        Raises:
            DataError: it was made for other groups of channels.
        """
        facts = json.loads(stem.with_suffix(".json").read_text())
        if facts["groups"] != _told(macs.groups):
            raise DataError(f"The predictor {stem.name!r} is of another backbone: make it anew.")
        lpnet = LPNet(len(macs.groups) + 1)
        lpnet.load_state_dict(load_file(stem.with_suffix(".safetensors")))
        return cls(lpnet, macs, facts.pop("dense_ms"), facts)


def features_of(macs: PrunedMacs, widths_PG: Tensor) -> Tensor:
    """Return ``features_PF``: shares of channels, and the logarithm of the share of MACs."""
    channels_G = torch.tensor([g.channels for g in macs.groups], device=widths_PG.device)
    total_P = macs(list(widths_PG.T)) / macs.dense
    return torch.cat([widths_PG / channels_G, total_P.log()[:, None]], dim=1)


def train_predictor(
    timings: WidthTimings,
    macs: PrunedMacs,
    *,
    steps: int = 1500,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
) -> tuple[LatencyPredictor, HeldOutError]:
    """Return a predictor that learned from four fifths of the timings, and its error on the rest.

    Args:
        timings: of at least ten configurations.
        macs: of the backbone that was timed.
        steps: of its training, each over all configurations.
        seed: of the split and of the initial weights.
        facts: kept with the predictor.
    """
    count = len(timings.ms_P)
    if count < 10:
        raise ConfigError(f"At least 10 configurations must be timed, but got {count}.")
    order_P = np.random.default_rng(seed).permutation(count)
    held, learned = np.split(order_P, [round(_HELD_OUT * count)])
    lpnet = _fitted(timings, macs, learned, steps, seed)
    made = {
        "groups": _told(macs.groups),
        "device": timings.device.key,
        "fingerprint": timings.device.fingerprint,
        "configurations": count,
        "drift": timings.drift,
        **(facts or {}),
    }
    predictor = LatencyPredictor(lpnet, macs, timings.dense_ms, made)
    error = error_of(predictor, timings.widths_PG[held], timings.ms_P[held])
    predictor.facts["held_out"] = {"mape": error.mape, "kendall_tau": error.kendall_tau}
    return predictor, error


def error_of(
    predictor: WidthCost, widths_PG: NDArray[np.int64], ms_P: NDArray[np.float64]
) -> HeldOutError:
    """Return how far predictions are from measurements."""
    predicted_P = np.array([predictor(widths_G) for widths_G in widths_PG.tolist()])
    tau = float(kendalltau(predicted_P, ms_P).statistic)
    return HeldOutError(
        mape=float(np.mean(np.abs(predicted_P - ms_P) / ms_P)),
        kendall_tau=0.0 if np.isnan(tau) else tau,
        configurations=len(ms_P),
        measured_ms=tuple(ms_P.tolist()),
        predicted_ms=tuple(predicted_P.tolist()),
    )


@dataclass(frozen=True, kw_only=True)
class Survey:
    """How much is measured for a predictor.

    Attributes:
        configurations: networks that are timed.
        multiple: their widths are multiples of this.
        least: share of a group's channels that they keep at least.
        batch: images per call.
        calls: timed, of each network.
        steps: of the predictor's training.
        seed: of the design.
    """

    configurations: int = 200
    multiple: int = 4
    least: float = 0.125
    batch: int = 1
    calls: int = 40
    steps: int = 1500
    seed: int = 0


def survey(
    backbone: nn.Module, image_shape: tuple[int, int, int], asked: Survey, *, progress: bool = False
) -> tuple[LatencyPredictor, HeldOutError]:
    """Time a backbone's configurations on this device, and return a predictor with its error."""
    macs = PrunedMacs(backbone, image_shape)
    widths_PG = covering_widths(
        macs.groups,
        asked.configurations,
        multiple=asked.multiple,
        least=asked.least,
        seed=asked.seed,
    )
    timings = time_widths(
        backbone,
        image_shape,
        macs.groups,
        widths_PG,
        batch=asked.batch,
        calls=asked.calls,
        seed=asked.seed,
        progress=progress,
    )
    return train_predictor(
        timings, macs, steps=asked.steps, seed=asked.seed, facts={"survey": asdict(asked)}
    )


def find_predictor(
    backbone: nn.Module,
    image_shape: tuple[int, int, int],
    asked: Survey | None = None,
    folder: Path | None = None,
) -> LatencyPredictor:
    """Return the predictor of this device and backbone, from the folder or by a survey.

    Args:
        backbone: the dense one, on the CPU.
        image_shape: (C, H, W).
        asked: the survey where there is none.
        folder: of tables and predictors; by default the environment variable
            ``RUNTIME_PRUNING_CALIBRATION`` names it. A predictor that is made here is kept there.
    """
    if folder is None and (named := os.environ.get(CALIBRATION_ENV)):
        folder = Path(named)
    asked = asked or Survey()
    if folder is None:
        return survey(backbone, image_shape, asked)[0]
    network = trace(backbone.eval(), image_shape, groups=1)
    name = f"lpnet-{structure_key(network)}-b{asked.batch}"
    stem = folder / TimedDeployedNetwork(deploy(network)).device.key / name
    if stem.with_suffix(".json").is_file():
        return LatencyPredictor.load(stem, PrunedMacs(backbone, image_shape))
    predictor, _ = survey(backbone, image_shape, asked)
    predictor.save(stem)
    return predictor


def _fitted(
    timings: WidthTimings, macs: PrunedMacs, rows: NDArray[np.int64], steps: int, seed: int
) -> LPNet:
    """Return a network that has learned some of the timings."""
    widths_PG = torch.from_numpy(timings.widths_PG[rows]).float()
    features_PF = features_of(macs, widths_PG)
    target_P = torch.from_numpy(np.log(timings.ms_P[rows] / timings.dense_ms)).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lpnet = LPNet(features_PF.shape[1])
    lpnet.mean_F.copy_(features_PF.mean(0))
    lpnet.scale_F.copy_(features_PF.std(0).clamp(min=1e-6))
    optimiser = torch.optim.AdamW(lpnet.parameters(), lr=_LR, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(lpnet(features_PF), target_P)
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return lpnet


def _told(groups: Sequence[PrunableGroup]) -> list[list[Any]]:
    """Return groups as JSON says them."""
    return [[group.name, group.channels] for group in groups]

"""Survey a backbone on this device, and say how well LPNet predicts what it did not see.

Run:     python tests/benchmarks/lpnet.py [--backbone resnet20-cifar] [--configurations 260]
Expect:  aims are a MAPE of 5 % and a Kendall tau of 0.9 on held-out configurations. Beside them
         stand what MACs alone predict (a line through the same timings), both again on a design of
         another seed that was timed later, and networks cut to a predicted share of the dense time.
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau

from runtime_pruning import backbones
from runtime_pruning.cost.predictor import LatencyPredictor, train_predictor
from runtime_pruning.cost.pruned_macs import PrunedMacs
from runtime_pruning.cost.width_timing import WidthTimings, covering_widths, time_widths
from runtime_pruning.methods.widths import uniform, widest_within
from runtime_pruning.timing.contamination import load_average

SHAPE = (3, 32, 32)
FRESH = 40  # configurations of the other design
TARGETS = (0.85, 0.7, 0.55, 0.4)  # shares of the dense network's time


def surveyed(
    backbone: torch.nn.Module, macs: PrunedMacs, options: argparse.Namespace
) -> WidthTimings:
    """Return the timings in the file that is named, or take them and keep them there."""
    if options.timings is not None and options.timings.exists():
        kept: WidthTimings = pickle.loads(options.timings.read_bytes())
        return kept
    widths_PG = covering_widths(macs.groups, options.configurations)
    timings = time_widths(
        backbone, SHAPE, macs.groups, widths_PG, calls=options.calls, progress=True
    )
    if options.timings is not None:
        options.timings.write_bytes(pickle.dumps(timings))
    return timings


def told(name: str, predicted_P: NDArray[np.float64], measured_P: NDArray[np.float64]) -> None:
    """Print how far predictions are from measurements."""
    error_P = np.abs(predicted_P - measured_P) / measured_P
    tau = kendalltau(predicted_P, measured_P).statistic
    print(f"{name}: MAPE {error_P.mean():.2%}, median {np.median(error_P):.2%}, tau {tau:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet20-cifar")
    parser.add_argument("--configurations", type=int, default=260)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--timings", type=Path, help="pickled timings, read or written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = backbones.create(options.backbone, num_classes=10, image_shape=SHAPE).eval()
    macs = PrunedMacs(backbone, SHAPE)
    timings = surveyed(backbone, macs, options)
    print(f"{timings.device.key}: dense {timings.dense_ms:.3f} ms, load {load_average():.1f}")
    print(f"{len(timings.ms_P)} configurations, dense times drift by {timings.drift:.1%}")
    predictor, error = train_predictor(timings, macs)
    held = np.isin(timings.ms_P, error.measured_ms)
    told("LPNet, held out", np.array(error.predicted_ms), np.array(error.measured_ms))
    macs_P = np.array([macs(row) for row in timings.widths_PG.tolist()], dtype=np.float64)
    line = np.polyfit(macs_P[~held], timings.ms_P[~held], 1)
    told("a line through MACs", np.polyval(line, macs_P[held]), timings.ms_P[held])
    fresh_PG = covering_widths(macs.groups, 1 + FRESH, seed=7)[1:]
    fresh = time_widths(backbone, SHAPE, macs.groups, fresh_PG, calls=options.calls, seed=1)
    predicted_P = np.array([predictor(row) for row in fresh_PG.tolist()])
    told("LPNet, another design", predicted_P, fresh.ms_P)
    macs_P = np.array([macs(row) for row in fresh_PG.tolist()], dtype=np.float64)
    told("a line through MACs, the same", np.polyval(line, macs_P), fresh.ms_P)
    cut_to_targets(backbone, macs, predictor, options.calls)


def cut_to_targets(
    backbone: torch.nn.Module, macs: PrunedMacs, predictor: LatencyPredictor, calls: int
) -> None:
    """Time the widest uniform networks that are predicted to take some shares of dense."""
    family = uniform(macs.groups, 4)
    widths_PG = np.array(
        [widest_within(predictor, share * predictor.dense, family) for share in TARGETS]
    )
    found = time_widths(backbone, SHAPE, macs.groups, widths_PG, calls=calls, seed=2)
    for share, widths_G, ms in zip(TARGETS, widths_PG.tolist(), found.ms_P, strict=True):
        measured = ms / found.dense_ms
        predicted = predictor(widths_G) / predictor.dense
        print(f"asked {share:.2f}, predicted {predicted:.3f}, measured {measured:.3f} of dense")


if __name__ == "__main__":
    main()

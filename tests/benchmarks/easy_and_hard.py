"""What width is worth on easy and on hard images of `cluttered-digits`, and how they look.

Run:     python tests/benchmarks/easy_and_hard.py [--sheet sheet.png]
Expect:  accuracy on the validation split, in all and by fifths of difficulty, of a network, of one
         of a quarter of its widths that is trained alike, and, with --any-width-epochs, of the
         uniform widths of one network that is trained to run at any. The sheet shows 64 images,
         easy ones first.

Seen on 2026-11-28 with --any-width-epochs 8, seed 0, one thread of an AMD EPYC, 150 s of CPU time,
validation split (3,000 images of 300 source digits):

                                  MACs    all  easiest fifth ... hardest fifth
    4/4 of the widths            3.10M  95.5%  98.5%  97.7%  97.7%  95.3%  88.2%
    4/4 of the any-width one     3.10M  95.1%  98.5%  97.3%  96.7%  94.8%  88.2%
    3/4 of the any-width one     2.03M  95.4%  98.8%  98.0%  97.7%  94.5%  87.8%
    2/4 of the any-width one     1.18M  94.2%  97.2%  97.5%  96.8%  93.7%  85.8%
    1/4 of the any-width one     0.55M  92.1%  96.8%  96.8%  94.7%  91.0%  81.0%
    1/4 of the widths            0.22M  90.6%  96.2%  95.2%  94.7%  89.8%  77.3%
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from runtime_pruning import datasets
from runtime_pruning.backbones.digits_cnn import CLUTTERED_WIDTHS, cluttered_network
from runtime_pruning.datasets import Split, to_float
from runtime_pruning.datasets.cluttered_digits import difficulty
from runtime_pruning.network import PrunableNetwork, order_channels, trace
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.network.training import TrainConfig, train

FIFTHS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--any-width-epochs", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="draw the images instead")
    options = parser.parse_args()
    data = datasets.load("cluttered-digits")
    if options.sheet:
        draw(data.validation, options.sheet)
        return
    print(f"{'':28}{'MACs':>10} {'all':>6}  easiest fifth ... hardest fifth")
    for part in (4, 1):
        network = network_of([width * part // 4 for width in CLUTTERED_WIDTHS])
        train(network, data.training, config(options.epochs, any_width=False), progress=False)
        show(f"{part}/4 of the widths", network, data.validation, 4)
        if part == 4 and options.any_width_epochs:
            order_channels(network)
            network.condition_batch_norm()
            train(
                network,
                data.training,
                config(options.any_width_epochs, any_width=True),
                progress=False,
            )
            for groups in (4, 3, 2, 1):
                show(f"{groups}/4 of the any-width one", network, data.validation, groups)


def network_of(widths: list[int]) -> PrunableNetwork:
    """Return the network of `cluttered-digits-cnn` at some widths."""
    torch.manual_seed(0)
    return trace(cluttered_network(widths), (1, 32, 32), groups=4, align=1)


def config(epochs: int, *, any_width: bool) -> TrainConfig:
    """Return how a network is trained."""
    return TrainConfig(epochs=epochs, any_width=any_width, random_plans=1, label_smoothing=0.05)


def show(name: str, network: PrunableNetwork, split: Split, groups: int) -> None:
    """Print accuracy by difficulty and MACs of a uniform width."""
    policy = FixedPolicy([groups] * len(network.sites))
    network.eval()
    right, macs = [], 0.0
    for start in range(0, len(split), 500):
        rows = slice(start, start + 500)
        with torch.no_grad():
            result = network.execute(to_float(split.images_NCHW[rows]), policy)
        right.append(result.logits_BK.argmax(1).numpy() == split.labels_N[rows])
        macs = float(result.executed_macs_B.double().mean())
    right_N = np.concatenate(right)
    fifth_N = (FIFTHS * difficulty(split.ids_N)).astype(int)
    by_fifth = "  ".join(f"{right_N[fifth_N == fifth].mean():.1%}" for fifth in range(FIFTHS))
    print(f"{name:28}{macs / 1e6:9.2f}M {right_N.mean():6.1%}  {by_fifth}", flush=True)


def draw(split: Split, path: Path) -> None:
    """Write 64 images in a square, in the order of their difficulty, three times as large."""
    some = split.head(64)
    order = np.argsort(difficulty(some.ids_N))
    bordered = np.pad(some.images_NCHW[order, 0], ((0, 0), (1, 1), (1, 1)), constant_values=128)
    rows = [np.concatenate(list(bordered[row : row + 8]), axis=1) for row in range(0, 64, 8)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((3 * sheet.width, 3 * sheet.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()

"""What tells, before it is spent, that an image gains by width: features on the way, or an answer.

Run:     python tests/benchmarks/gain_by_width.py --preset cifar10-mcifarnet --results results
Expect:  a line per site: all images run one group up to it, and those of which most is expected run
         all groups from there on; accuracy at that mean of MACs, against giving the width to as
         many images by lot. The last line asks after the answer instead: a second look.

What is expected of an image is regressed, on the policy split, from what a decision network would
see there: the pooled input of the site, or in the end the class probabilities, greatest first. The
target is the gain in probability of the right class. A small network of 32 units and a linear one
are fitted; the better on the validation split is printed, so that what is printed is, if anything,
too good.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime_pruning.datasets import Split, to_float
from runtime_pruning.executor import deploy
from runtime_pruning.executor.deployed import DeployedNetwork
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.prepare import prepare
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
BATCH = 250
Plan = tuple[int, ...]


class Seen:
    """Runs one plan and keeps what would have been looked at before each site."""

    macs_per_image = 0

    def __init__(self, plan: Plan) -> None:
        self.name = f"plan {plan}"
        self.plan = plan
        self.features: list[list[Tensor]] = [[] for _ in plan]

    def start(self, batch: int) -> "Seen":
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        self.features[site].append(features_BF.clone())
        return torch.full((len(features_BF),), self.plan[site])


def certainty(logits_NK: Tensor) -> Tensor:
    """Return class probabilities, greatest first."""
    return logits_NK.float().softmax(1).sort(1, descending=True).values


class Outcome:
    """What a plan does to the images of a split."""

    def __init__(self, deployed: DeployedNetwork, split: Split, plan: Plan, look: bool) -> None:
        labels_N = torch.from_numpy(np.array(split.labels_N)).long()
        seen, logits = Seen(plan), []
        for start in range(0, len(split), BATCH):
            images_BCHW = to_float(split.images_NCHW[start : start + BATCH])
            plans_BL = torch.tensor([plan] * len(images_BCHW))
            found = (
                deployed.execute(images_BCHW, seen) if look else deployed.run(images_BCHW, plans_BL)
            )
            logits.append(found.logits_BK)
        logits_NK = torch.cat(logits)
        self.right_N = (logits_NK.argmax(1) == labels_N).float()
        self.chance_N = logits_NK.softmax(1).gather(1, labels_N[:, None])[:, 0]
        self.fraction = deployed.macs.fraction(plan)
        self.looks = [torch.cat(part) for part in seen.features] if look else []
        self.looks += [certainty(logits_NK)]


def fitted(features_NF: Tensor, gain_N: Tensor, hidden: int) -> nn.Module:
    """Return what predicts the gain from the features."""
    torch.manual_seed(0)
    width = features_NF.shape[1]
    network: nn.Module = nn.Linear(width, 1)
    if hidden:
        network = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(15):
        for rows in torch.randperm(len(gain_N)).split(128):
            loss = (network(features_NF[rows])[:, 0] - gain_N[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network


def expected(known: Tensor, gain_N: Tensor, asked: Tensor) -> Iterator[Tensor]:
    """Yield the gains that two networks, fitted on what is known, expect of what is asked."""
    varies_F = known.std(0) > 1e-6
    mean_F, scale_F = known[:, varies_F].mean(0), known[:, varies_F].std(0)
    known_NF, asked_NF = ((x[:, varies_F] - mean_F) / scale_F for x in (known, asked))
    for hidden in (0, 32):
        network = fitted(known_NF, gain_N, hidden)
        with torch.no_grad():
            yield network(asked_NF)[:, 0]


def line(
    name: str,
    site: int,
    narrow: tuple[Outcome, Outcome],
    wide: tuple[Outcome, Outcome],
    again: bool,
) -> str:
    """Return what choosing by expectation gains over lots, at a quarter and half of the images."""
    (known, asked), (known_wide, asked_wide) = narrow, wide
    dearer = asked_wide.fraction + (asked.fraction if again else 0.0)
    gain_N = known_wide.chance_N - known.chance_N
    orders = [
        prediction_N.argsort(descending=True)
        for prediction_N in expected(known.looks[site], gain_N, asked.looks[site])
    ]
    cells = []
    for share in (0.25, 0.5):
        count = int(share * len(asked.right_N))
        best = -np.inf
        for order in orders:
            mixed_N = asked.right_N.clone()
            mixed_N[order[:count]] = asked_wide.right_N[order[:count]]
            best = max(best, 100 * float(mixed_N.mean()))
        lots = 100 * float((1 - share) * asked.right_N.mean() + share * asked_wide.right_N.mean())
        spent = 100 * ((1 - share) * asked.fraction + share * dearer)
        cells.append(f"{best:.2f} at {spent:.1f} %, {best - lots:+.2f} over lots")
    return f"{name:>24}: " + "; ".join(cells)


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path("results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    material = check_sweep(load_preset(args.preset, PRESETS, args.set))
    network: PrunableNetwork = prepare(material, args.results / "prepared").network
    deployed = deploy(network, part=125)
    splits = (material.data.policy, material.data.validation)

    def outcomes(plan: Plan, *, look: bool = False) -> tuple[Outcome, Outcome]:
        known, asked = (Outcome(deployed, split, plan, look) for split in splits)
        return known, asked

    narrow = outcomes(network.uniform(1), look=True)
    for site, known in enumerate(network.sites):
        plan = tuple(1 if s < site else network.groups for s in range(len(network.sites)))
        print(line(f"before {known.name}", site, narrow, outcomes(plan), False), flush=True)
    every = outcomes(network.uniform(network.groups))
    print(line("after the answer", len(network.sites), narrow, every, True), flush=True)


if __name__ == "__main__":
    main()

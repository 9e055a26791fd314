"""How much of the MACs that are saved is saved in time: deployed networks against dense.

Run:     python tests/benchmarks/execution.py --backbone mcifarnet --batch 1 64 --fraction 0.5 0.25
Expect:  one table; each row compares a way to run the same plans with the best dense execution of
         the same backbone (fused, same precision and layout), interleaved in one process.

Plans are random, one per image, with the MACs asked for. Realisation is the measured speed-up over
the MAC speed-up: 1 means that every saved MAC saved its time. Ways:

    image, prefix, bucket, ragged, dense   modes of a deployed network, where it has them
    auto                           the mode that pays by a break-even measured before
    decided                        auto, the plan chosen by an untrained decision network as it goes
                                   (in the mode told: "full" where none was faster than dense)
    uniform                        all images share one plan of about these MACs
    static                         a network pruned to that plan for good: the limit of slicing
    pruned                         the same widths as auto: of eight images' plans, a network pruned
                                   to each for good, an eighth of the batch by each
    eager                          sliced execution without fused calls
    masked                         everything is computed and multiplied by zeros
    released                       mask after each full convolution, as released code does
    compiled                       dense by torch.compile (needs a C++ compiler)

A timing repeats its call for about 20 ms: what is compared are networks that run again and again,
not each after the other has emptied the caches.

A verdict of "contaminated" comes without numbers; ``--anyway`` prints the median ratio of CPU times
(one thread; of wall times with more), with its interval, marked by "~": an indication, no result.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.executor import DEPLOYED_MODES, DeployedNetwork, deploy
from runtime_pruning.executor.autotuning import measure_modes, measure_policy, random_plans
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.timing.comparison import measure
from runtime_pruning.timing.turns import interleaved

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)
WAYS = (*DEPLOYED_MODES, "decided", "uniform", "static", "pruned", "eager", "masked", "released")
WAYS += ("compiled",)
COLUMNS = ("backbone", "batch", "dtype", "way", "dense ms")
COLUMNS += ("MAC speed-up", "speed-up", "realisation", "verdict")
LEAST_MS = 20.0  # of a timing
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One line of the table before the way: what is compared at what."""

    backbone: str
    batch: int
    dtype: str
    fraction: float


@dataclass(frozen=True)
class Candidate:
    """A way to run a case: the call, and its share of the dense MACs."""

    call: Callable[[], Any]
    fraction: float


class Bench:
    """A backbone, traced and deployed once for all its cases of one precision."""

    def __init__(self, name: str, dtype: str, groups: int, side: int | None) -> None:
        shape = CIFAR if name in ("mcifarnet", "digits-cnn") or "cifar" in name else IMAGENET
        self.shape = shape if side is None else (3, side, side)
        classes = 10 if shape == CIFAR else 1000
        torch.manual_seed(0)
        if name in backbones.names():
            backbone = backbones.create(name, num_classes=classes, image_shape=self.shape)
        else:
            backbone = torchvision.models.get_model(name, num_classes=classes)
        self.network: PrunableNetwork = trace(backbone, self.shape, groups=groups).eval()
        self.deployed: DeployedNetwork = deploy(self.network, dtype=DTYPES[dtype])
        self.dtype = DTYPES[dtype]
        self._released: nn.Module | None = None

    def candidates(self, case: Case, ways: list[str]) -> Iterator[tuple[str, Candidate]]:
        """Yield each way with its call, on the same images and plans."""
        generator = torch.Generator().manual_seed(case.batch)
        images_BCHW = self.images(case.batch)
        plans = random_plans(self.deployed, case.fraction, case.batch, generator)
        groups_BL = torch.tensor(plans)
        share = statistics.fmean(map(self.deployed.macs.fraction, plans))
        alike = min(plans, key=lambda plan: abs(self.deployed.macs.fraction(plan) - case.fraction))
        level = self.deployed.macs.fraction(alike)
        deployed, network, sites = self.deployed, self.network, len(self.network.sites)
        if "auto" in ways and case.batch > 1:
            measure_modes(deployed, (case.batch,), (1.0, case.fraction), rounds=3)
        for way in ways:
            if way in set(DEPLOYED_MODES) - {"auto", *deployed.modes}:
                continue
            if way in DEPLOYED_MODES:
                call = partial(deployed.run, images_BCHW, groups_BL, mode=way)
                yield way, Candidate(call, 1.0 if way == "dense" else share)
            elif way == "decided":
                policy = decision_policy(network)
                measure_policy(deployed, images_BCHW, policy, (case.batch,))
                done = deployed.execute(images_BCHW, policy)
                own = float(done.total_macs_B.double().mean()) / deployed.dense_macs
                way = f"decided, {done.mode}"
                yield way, Candidate(partial(deployed.execute, images_BCHW, policy), own)
            elif way == "uniform":
                same_BL = torch.tensor([alike] * case.batch)
                yield way, Candidate(partial(deployed.run, images_BCHW, same_BL), level)
            elif way == "static":
                yield way, Candidate(partial(deployed.static(alike), images_BCHW), level)
            elif way == "pruned":
                step = max(1, case.batch // 8)
                few = plans[::step]
                parts = images_BCHW.split(step)
                runs = [
                    partial(deployed.static(plan), part)
                    for plan, part in zip(few, parts, strict=True)
                ]
                mean = statistics.fmean(map(deployed.macs.fraction, few))
                yield way, Candidate(partial(each, runs), mean)
            elif way in ("eager", "masked"):
                mode: Any = "masked" if way == "masked" else "sliced"
                call = partial(self.eager, images_BCHW, groups_BL, mode)
                yield way, Candidate(call, 1.0 if way == "masked" else share)
            elif way == "released":
                assert sites == groups_BL.shape[1]
                yield way, Candidate(partial(self.released, images_BCHW, groups_BL), 1.0)
            elif way == "compiled":
                yield way, Candidate(self.compiled(images_BCHW), 1.0)

    def images(self, batch: int) -> Tensor:
        """Return random images."""
        return torch.rand(batch, *self.shape, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def eager(self, images_BCHW: Tensor, groups_BL: Tensor, mode: Any) -> Tensor:
        """Run the network as it is trained, in its own precision of 32 bits."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            return self.network.run(images_BCHW, groups_BL, mode=mode).logits_BK

    @torch.inference_mode()
    def released(self, images_BCHW: Tensor, groups_BL: Tensor) -> Tensor:
        """Run the plain backbone; hooks multiply each site's result by a mask."""
        channels_BL = self.network.channels(groups_BL)
        hooks = []
        for site in self.network.sites:
            present_BC = torch.arange(site.channels) < channels_BL[:, site.index, None]
            mask_BC11 = present_BC[:, :, None, None].float()
            module = self.network.module(site.name)
            hooks.append(module.register_forward_hook(lambda *a, m=mask_BC11: a[-1] * m))
        try:
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                return self.network.backbone(images_BCHW)
        finally:
            for hook in hooks:
                hook.remove()

    def compiled(self, images_BCHW: Tensor) -> Callable[[], Tensor]:
        """Return the dense backbone by torch.compile, compiled already."""
        backbone = self.network.backbone.to(memory_format=torch.channels_last)
        torch._inductor.config.freezing = True
        run = torch.compile(backbone)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)

        @torch.no_grad()
        def call() -> Tensor:
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                return run(images_BCHW)

        call()
        return call


def each(calls: list[Callable[[], Any]]) -> None:
    """Call all."""
    for call in calls:
        call()


def decision_policy(network: PrunableNetwork) -> DecisionPolicy:
    """Return an untrained decision network: its choices mean nothing, its time does."""
    torch.manual_seed(0)
    config = DecisionConfig(feature_widths=network.feature_widths, groups=network.groups)
    return DecisionPolicy(DecisionNetwork(config), 0.1)


def compare(
    dense: Callable[[], Any], candidate: Candidate, ms: float, args: argparse.Namespace
) -> str:
    """Return the cells of a row: MAC speed-up, speed-up, realisation, verdict."""
    macs = 1 / candidate.fraction
    calls = math.ceil(LEAST_MS / ms)
    found = measure(dense, candidate.call, rounds=args.rounds, warmup=args.warmup, calls=calls)
    mark = ""
    if found.figures is not None:
        low, value, high = found.figures.speedup
    elif args.anyway:
        mark = "~"
        low, value, high = medians(dense, candidate.call, args.rounds)
    else:
        return f"{macs:.2f} | | | {found}"
    interval = f"{mark}{value:.2f} ({low:.2f} to {high:.2f})"
    return f"{macs:.2f} | {interval} | {mark}{value / macs:.2f} | {found.verdict}"


def medians(
    dense: Callable[[], Any], candidate: Callable[[], Any], rounds: int
) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios between the ends of its bootstrap interval."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    works = {"dense": dense, "candidate": candidate}
    seconds = interleaved(works, rounds=rounds, clock=clock)
    ratio_R = np.array(seconds["dense"]) / np.array(seconds["candidate"])
    drawn = np.random.default_rng(0).integers(0, len(ratio_R), (2000, len(ratio_R)))
    low, high = np.quantile(np.median(ratio_R[drawn], axis=1), (0.025, 0.975))
    return float(low), float(np.median(ratio_R)), float(high)


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", nargs="+", default=["mcifarnet", "resnet20-cifar"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    fractions = [0.75, 0.5, 0.33, 0.25, 0.1]
    parser.add_argument("--fraction", nargs="+", type=float, default=fractions)
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS[:-1]))
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--side", type=int, help="pixels; default: 32 or 224")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10, help="at least 10")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before the clock starts")
    parser.add_argument("--anyway", action="store_true", help="print contaminated ratios, too")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse()
    torch.set_num_threads(args.threads)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for name, dtype in product(args.backbone, args.dtype):
        bench = Bench(name, dtype, args.groups, args.side)
        for batch, fraction in product(args.batch, args.fraction):
            case = Case(name, batch, dtype, fraction)
            dense = partial(bench.deployed.dense, bench.images(batch))
            (times,) = interleaved({"dense": dense}, rounds=3).values()
            ms = 1e3 * statistics.median(times)
            digits = max(0, 2 - math.floor(math.log10(ms)))
            for way, candidate in bench.candidates(case, args.way):
                cells = compare(dense, candidate, ms, args)
                print(
                    f"| {name} | {batch} | {dtype} | {way} | {ms:.{digits}f} | {cells} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

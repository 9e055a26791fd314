"""Which networks that others wrote are accepted, and whether they then run as they do plainly.

Run:     python tests/benchmarks/accepted_networks.py --source timm --networks 40
Expect:  a line per network, drawn by chance with a fixed seed from the convolutional classifiers of
         torchvision or timm of at most 50 M parameters: how many of its convolutions are sites,
         or why it is refused; last how many are accepted and how many of those are wrong.

Weights are random, images small. An accepted network is run with random plans, staged and masked,
and with ``--deployed`` in every mode of the executor in float32; each must agree.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from runtime_pruning.errors import ContractError, TracingError
from runtime_pruning.executor.agreement import check_modes
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import trace
from runtime_pruning.testing.network import close, shake

PARAMETERS = 50e6
CLASSES = 10
NO_CNNS = ("vit_", "swin", "maxvit")  # of torchvision's classifiers
FAMILIES = (  # timm's modules of convolutional classifiers
    *("byobnet", "convnext", "cspnet", "densenet", "dla", "dpn", "efficientnet", "ghostnet"),
    *("hardcorenas", "hgnet", "hrnet", "inception_next", "inception_resnet_v2", "inception_v3"),
    *("inception_v4", "mobilenetv3", "nfnet", "regnet", "repghost", "res2net", "resnest", "resnet"),
    *("resnetv2", "rexnet", "selecsls", "senet", "sknet", "starnet", "tresnet", "vgg", "vovnet"),
    *("xception", "xception_aligned"),
)
Maker = Callable[[], nn.Module]


@dataclass(frozen=True)
class Outcome:
    """What came of a network.

    Attributes:
        name: of the network.
        sites: none if it is refused.
        convolutions: sites and others.
        refused: why; empty if it is accepted.
        wrong: how an accepted network runs otherwise than it should; empty if it does not.
    """

    name: str
    sites: int = 0
    convolutions: int = 0
    refused: str = ""
    wrong: str = ""

    def __str__(self) -> str:
        found = f"{self.sites:4} sites of {self.convolutions:4} convolutions"
        verdict = self.refused or self.wrong or "right"
        return f"{self.name:36} {'refused' if self.refused else found}: {verdict}"


def torchvision_networks() -> dict[str, Maker]:
    """Return torchvision's convolutional classifiers by name."""
    from torchvision import models

    def maker(name: str) -> Maker:
        # Their second classifiers, which only training has, are no part of what is shipped.
        plain = {"aux_logits": False, "init_weights": False}
        settings = plain if name in ("googlenet", "inception_v3") else {}
        return lambda: models.get_model(name, weights=None, num_classes=CLASSES, **settings)

    names = models.list_models(module=models)
    return {name: maker(name) for name in names if not name.startswith(NO_CNNS)}


def timm_networks() -> dict[str, Maker]:
    """Return timm's convolutional classifiers by name."""
    import timm

    def maker(name: str) -> Maker:
        return lambda: timm.create_model(name, pretrained=False, num_classes=CLASSES)

    names = {name for family in FAMILIES for name in timm.list_models(module=family)}
    return {name: maker(name) for name in sorted(names)}


SOURCES: dict[str, Callable[[], dict[str, Maker]]] = {
    "torchvision": torchvision_networks,
    "timm": timm_networks,
}


def tried(name: str, make: Maker, *, deployed: bool, batch: int = 3) -> Outcome:
    """Trace a network, and run it with random plans.

    Args:
        name: of the network.
        make: builds it.
        deployed: whether it is run in every mode of the executor, too.
        batch: images.
    """
    torch.manual_seed(0)
    size = 96 if "inception" in name else 64
    images_BCHW = torch.rand(batch, 3, size, size)
    try:
        network = trace(make().eval(), (3, size, size))
    except TracingError as error:
        return Outcome(name, refused=str(error))
    sites, others = len(network.sites), len(network.graph.no_sites)
    shake(network.backbone, images_BCHW, seed=1)
    network.eval()
    plans_BL = torch.randint(1, network.groups + 1, (batch, sites))
    wrong = ""
    try:
        with torch.no_grad():
            full_BL = torch.full_like(plans_BL, network.groups)
            plain_BK = network.backbone(images_BCHW)
            close(network.run(images_BCHW, full_BL).logits_BK, plain_BK)
            sliced_BK = network.run(images_BCHW, plans_BL).logits_BK
            masked_BK = network.run(images_BCHW, plans_BL, mode="masked").logits_BK
            torch.testing.assert_close(sliced_BK, masked_BK, rtol=1e-3, atol=1e-3)
            if deployed:
                check_modes(deploy(network), network, images_BCHW, plans_BL)
    except (AssertionError, ContractError, RuntimeError, TypeError) as error:
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Outcome(name, sites, sites + others, wrong=wrong)


def drawn(source: str, networks: int, seed: int) -> Iterator[tuple[str, Maker]]:
    """Yield networks drawn by chance, none of more than `PARAMETERS`."""
    every = SOURCES[source]()
    names = sorted(every)
    random.Random(seed).shuffle(names)
    left = networks
    for name in names:
        count = sum(p.numel() for p in every[name]().parameters())
        if count <= PARAMETERS:
            left -= 1
            yield name, every[name]
        if not left:
            return


def main() -> int:
    """Print a line per network; return 1 if an accepted one is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", choices=sorted(SOURCES), default="timm")
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deployed", action="store_true")
    arguments = parser.parse_args()
    outcomes = []
    for name, make in drawn(arguments.source, arguments.networks, arguments.seed):
        started = time.monotonic()
        outcomes.append(tried(name, make, deployed=arguments.deployed))
        print(f"{outcomes[-1]} ({time.monotonic() - started:.0f} s)", flush=True)
    accepted = [outcome for outcome in outcomes if not outcome.refused]
    wrong = [outcome for outcome in accepted if outcome.wrong]
    print(f"{len(accepted)} of {len(outcomes)} accepted, {len(wrong)} of them wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The contract of a prunable network as clauses: what any must do, on this machine.

`check-backbone` prints them as a scorecard; a sweep tries them on its own network before it trains
anything, so that what is measured is what is shipped. The same promises, more finely cut, are the
pytest suite in `runtime_pruning.testing.network`.

Dimensions: B images, L sites, K classes.
"""

import copy
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runtime_pruning.cost.macs import dense_macs, plan_macs
from runtime_pruning.errors import ContractError
from runtime_pruning.executor.agreement import check_modes
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import PrunableNetwork, order_channels
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.staged_run import MODES

BATCH = 5
_TOLERANCE = 1e-5  # of the largest value, in float64

# Reads a pickle, runs it, and writes the logits: in a process that knows nothing else.
_ELSEWHERE = """
import pickle, sys, torch
folder, sys.path[:] = sys.argv[1], sys.argv[2].split("\\n")
with open(folder + "/subject.pickle", "rb") as file:
    network, images, plans = pickle.load(file)
with torch.no_grad():
    torch.save(network.run(images, plans).logits_BK, folder + "/logits.pt")
"""


@dataclass(frozen=True)
class Clause:
    """One promise.

    Attributes:
        name: what is promised.
        passed: None where an earlier clause failed that it needs.
        reason: why it failed; empty if it did not.
    """

    name: str
    passed: bool | None
    reason: str = ""

    def __str__(self) -> str:
        mark = {True: "passed ", False: "FAILED ", None: "not run"}[self.passed]
        return f"{mark}  {self.name}" + (f": {self.reason}" if self.reason else "")


def try_clauses(
    network: PrunableNetwork,
    *,
    images: int = BATCH,
    seconds: float = float("inf"),
    without: Collection[str] = (),
) -> Iterator[Clause]:
    """Yield each clause after trying it on a copy of the network with biases drawn at random.

    Args:
        network: traced; it is not changed.
        images: of noise, at least 2.
        seconds: a clause whose turn comes later is not tried any more.
        without: names of clauses that are left out.
    """
    subject, started = _Subject(network, images), time.monotonic()
    for promise, check in PROMISES.items():
        if promise in without:
            continue
        if time.monotonic() - started > seconds:
            yield Clause(promise, None, f"not tried: {seconds:g} seconds had passed")
        else:
            yield _tried(promise, check, subject)


class _Subject:
    """A copy of a traced network with images and plans to try it on, in float64."""

    def __init__(self, network: PrunableNetwork, images: int) -> None:
        generator = torch.Generator().manual_seed(2)
        images_BCHW = torch.rand(images, *network.image_shape, generator=generator)
        self.network = copy.deepcopy(network).cpu().double().eval()
        self.images_BCHW = images_BCHW.double()
        size = (images, len(network.sites))
        self.plans_BL = torch.randint(1, network.groups + 1, size, generator=generator)
        self.full_BL = torch.full(size, network.groups)
        self._shake(generator)

    def _shake(self, generator: torch.Generator) -> None:
        """Draw batch norm and biases at random: fresh ones are zeros, which hide mistakes."""
        norms = [m for m in self.network.modules() if isinstance(m, NORMS)]
        for module in self.network.modules():
            if isinstance(module, NORMS) and module.weight is not None:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, (*NORMS, nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.data.uniform_(-0.2, 0.3, generator=generator)
        # Statistics of these images, so that the logits depend on them.
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        self.network.backbone(self.images_BCHW)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def _tried(promise: str, check: Callable[[_Subject], None], subject: _Subject) -> Clause:
    """Return a clause after trying it; whatever the backbone raises is its failure."""
    try:
        with torch.no_grad():
            check(subject)
    except ContractError as error:
        return Clause(promise, False, str(error))
    except Exception as error:
        reason = " ".join(str(error).split())
        return Clause(promise, False, f"{type(error).__name__}: {reason}")
    return Clause(promise, True)


def _agree(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless both agree, relative to the largest value."""
    if actual.shape != expected.shape:
        raise ContractError(f"{what}: shapes {tuple(actual.shape)} and {tuple(expected.shape)}.")
    scale = float(expected.abs().max())
    apart = float((actual - expected).abs().max())
    if not apart <= _TOLERANCE * scale + 1e-12:
        raise ContractError(
            f"{what} differ by up to {apart:.3g}, where the largest is {scale:.3g}."
        )


# Clauses


def _deterministic(subject: _Subject) -> None:
    """The same images give the same logits, other images others."""
    first_BK, again_BK = (subject.network.backbone(subject.images_BCHW) for _ in range(2))
    _agree(again_BK, first_BK, "In evaluation mode, logits of the same images")
    if not float(first_BK.std(0).max()) > 1e-9:
        raise ContractError("Different images get the same logits.")


def _all_groups(subject: _Subject) -> None:
    plain_BK = subject.network.backbone(subject.images_BCHW)
    for mode in MODES:
        run = subject.network.run(subject.images_BCHW, subject.full_BL, mode=mode)
        _agree(run.logits_BK, plain_BK, f"Logits of the plain backbone and of all groups, {mode},")


def _sliced_masked(subject: _Subject) -> None:
    """The first site at which both differ is named."""
    runs = [subject.network.start(subject.images_BCHW, mode=mode) for mode in MODES]
    sliced, masked = runs
    for site in subject.network.sites:
        what = f"Pooled inputs of site {site.index} ({site.name}), sliced and masked,"
        _agree(sliced.features_BF, masked.features_BF, what)
        for run in runs:
            run.advance(subject.plans_BL[:, site.index])
    _agree(sliced.logits_BK, masked.logits_BK, "Logits, sliced and masked,")


def _executed_macs(subject: _Subject) -> None:
    """All images on the same plan first, then each on its own."""
    network, size = subject.network, subject.plans_BL.shape
    uniform = [torch.full(size, groups) for groups in range(1, network.groups + 1)]
    for plans_BL in (*uniform, subject.plans_BL):
        executed_B = network.run(subject.images_BCHW, plans_BL).executed_macs_B
        analytic_B = plan_macs(network, network.channels(plans_BL))
        for executed, analytic in zip(executed_B.tolist(), analytic_B.tolist(), strict=True):
            if executed != analytic:
                raise ContractError(f"{executed:,} MACs were executed, {analytic:,} are computed.")


def _torch_macs(subject: _Subject) -> None:
    """Torch counts two operations per MAC."""
    with FlopCounterMode(display=False) as counter:
        subject.network.backbone(subject.images_BCHW[:1])
    ours, theirs = dense_macs(subject.network), counter.get_total_flops() / 2
    if ours != theirs:
        raise ContractError(f"PyTorch counts {theirs:,.0f} MACs, we count {ours:,}.")


def _batch_modes(subject: _Subject) -> None:
    """Images in buckets, one by one, and in each mode of the deployed network."""
    network = subject.network
    whole = network.run(subject.images_BCHW, subject.plans_BL)
    for image in range(len(subject.images_BCHW)):
        alone = network.run(subject.images_BCHW[image, None], subject.plans_BL[image, None])
        _agree(
            alone.logits_BK[0], whole.logits_BK[image], "Logits of an image alone and in a batch"
        )
        if alone.executed_macs_B[0] != whole.executed_macs_B[image]:
            raise ContractError("An image alone executes other MACs than in a batch.")
    deployed = deploy(network, dtype=torch.float64, fused=False)
    for mode in deployed.modes:
        run = deployed.run(subject.images_BCHW, subject.plans_BL, mode=mode)
        what = f"Logits of a batch deployed, mode {mode!r}, and not deployed"
        _agree(run.logits_BK.double(), whole.logits_BK, what)


def _deployed(subject: _Subject, dtype: torch.dtype) -> None:
    """Fused, as a bundle is run: each image on its own plan, all alike, one alone."""
    network, images_BCHW = copy.deepcopy(subject.network).float(), subject.images_BCHW.float()
    deployed = deploy(network, dtype=dtype, part=len(images_BCHW))
    for plans_BL in (subject.plans_BL, subject.plans_BL[:1].expand_as(subject.plans_BL)):
        check_modes(deployed, network, images_BCHW, plans_BL)
    check_modes(deployed, network, images_BCHW[:1], subject.plans_BL[:1])


def _channel_order(subject: _Subject) -> None:
    network = copy.deepcopy(subject.network)
    order_channels(network)
    expected_BK = subject.network.backbone(subject.images_BCHW)
    _agree(network.backbone(subject.images_BCHW), expected_BK, "Logits before and after ordering")


def _another_process(subject: _Subject) -> None:
    """A process that has nothing but the installed packages and this one's import path."""
    expected_BK = subject.network.run(subject.images_BCHW, subject.plans_BL).logits_BK
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "subject.pickle").open("wb") as file:
            pickle.dump((subject.network, subject.images_BCHW, subject.plans_BL), file)
        command = [sys.executable, "-c", _ELSEWHERE, folder, "\n".join(sys.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ContractError(f"The other process says: {done.stderr.strip().splitlines()[-1]}")
        actual_BK = torch.load(Path(folder) / "logits.pt", weights_only=True)
    _agree(actual_BK, expected_BK, "Logits here and in another process")


ELSEWHERE = "it pickles to another process"
PROMISES: dict[str, Callable[[_Subject], None]] = {
    # First, since a sweep may not have the time for all: what is shipped.
    "deployed in float32, all modes agree with plain PyTorch": partial(
        _deployed, dtype=torch.float32
    ),
    "deployed in bfloat16, all modes agree with plain PyTorch": partial(
        _deployed, dtype=torch.bfloat16
    ),
    "logits depend on the image, and on nothing else": _deterministic,
    "all groups equal the plain backbone": _all_groups,
    "sliced equals masked": _sliced_masked,
    "executed MACs equal analytic MACs": _executed_macs,
    "PyTorch counts the same MACs": _torch_macs,
    "batch modes agree": _batch_modes,
    "ordering channels leaves the function": _channel_order,
    ELSEWHERE: _another_process,
}

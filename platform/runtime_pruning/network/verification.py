"""The guard of tracing: a traced network must compute what the plain backbone computes.

At full width its logits are those of the backbone, in evaluation and in training; at other widths
computing a slice means the same as multiplying by zeros. Both are tried on random images, with
scales and shifts drawn at random, since fresh ones (zeros and ones) hide mistakes.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from runtime_pruning.errors import TracingError
from runtime_pruning.network import recording
from runtime_pruning.network.prunable import PrunableNetwork

BATCH = 3  # another than that of the recording: what is bound to a number of images fails
# Largest difference allowed, relative to the largest value.
_EQUAL = {torch.float64: 1e-7, torch.float32: 1e-3}
_COARSE = 0.05


@torch.no_grad()
def verify(network: PrunableNetwork) -> None:
    """Pass a network that computes what its backbone computes; nothing in it changes.

    On the meta device, where there are no numbers, each passes.

    Raises:
        TracingError: the logits differ, or depend on the number of images.
    """
    like = next(network.backbone.parameters(), torch.empty(0))
    if like.is_meta:
        return  # it has no numbers
    generator = torch.Generator().manual_seed(1)
    images_BCHW = torch.rand(BATCH, *network.image_shape, generator=generator).to(like)
    tensors = _shaken(network.backbone, generator)
    plain = {name: t.clone() for name, t in network.backbone.named_buffers()}
    network.slices.clear()
    with _modes_kept(network), torch.random.fork_rng(devices=[]):
        told = functional_call(_Trial(network), {**tensors, **_named(plain)}, (images_BCHW,))
    network.slices.clear()
    if told:
        raise TracingError(told)


class _Trial(nn.Module):
    """Runs the comparisons; as a module, so that weights can be put in its place."""

    def __init__(self, network: PrunableNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> str:
        """Return what differs; nothing if all agree."""
        return next(_differences(self.network, images_BCHW), "")


def _differences(network: PrunableNetwork, images_BCHW: Tensor) -> Iterator[str]:
    """Yield what differs, one by one."""
    full_BL = torch.full((len(images_BCHW), len(network.sites)), network.groups)
    for training, mode in ((False, "evaluation"), (True, "training")):
        network.train(training)
        torch.manual_seed(0)
        plain_BK = _tried(f"The backbone, in {mode},", network.backbone, images_BCHW)
        torch.manual_seed(0)
        run = _tried("The traced network", network.run, images_BCHW, full_BL)
        apart = _apart(run.logits_BK, plain_BK)
        if apart:
            yield (
                f"In {mode}, the traced network gives other logits than the backbone ({apart}): "
                "its forward does what tensor operations do not show (chance, the number of "
                "images, state outside of torch.nn modules). Write that as a module of torch.nn."
            )
    network.eval()
    generator = torch.Generator().manual_seed(2)
    plans_BL = torch.randint(1, network.groups + 1, full_BL.shape, generator=generator)
    sliced, masked = network.start(images_BCHW), network.start(images_BCHW, mode="masked")
    for site in network.sites:
        apart = _apart(sliced.features_BF, masked.features_BF)
        if apart:
            yield _mixed(f"reaches site {site.index} ({site.name})", apart)
        for run in (sliced, masked):
            run.advance(plans_BL[:, site.index])
    apart = _apart(sliced.logits_BK, masked.logits_BK)
    if apart:
        yield _mixed("reaches the logits", apart)


def _mixed(where: str, apart: str) -> str:
    """Return what is said where a slice means something else than zeros."""
    return (
        f"Left-out channels change what {where} ({apart}): an operation before it that counts as "
        "per-channel mixes channels. Was a module wrongly declared with `per_channel`?"
    )


def _tried(what: str, function: Callable[..., Any], *arguments: Tensor) -> Any:
    """Return a function's result, or say that it cannot run these images."""
    try:
        return function(*arguments)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise TracingError(
            f"{what} cannot run {BATCH} images, after it ran {recording.BATCH}: "
            f"{(str(error).splitlines() or [''])[0]}"
        ) from error


def _apart(actual: Tensor, expected: Tensor) -> str:
    """Return how far two tensors are apart; nothing if they agree."""
    if actual.shape != expected.shape:
        return f"shapes {tuple(actual.shape)} and {tuple(expected.shape)}"
    one, other = actual.double(), expected.double()
    scale = float(other.abs().max())
    apart = float((one - other).abs().max())
    allowed = _EQUAL.get(expected.dtype, _COARSE)
    if apart <= allowed * scale + 1e-12 or torch.equal(one, other):
        return ""
    same = (one == other) | (one.isnan() & other.isnan())
    return "" if bool(same.all()) else f"they differ by {apart:.3g}, the largest is {scale:.3g}"


def _shaken(backbone: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the parameters, vectors (scales, shifts, slopes) drawn at random."""
    drawn = {}
    for name, parameter in backbone.named_parameters():
        value = parameter.detach()
        if value.is_floating_point() and value.numel() == max(value.shape, default=1):
            value = 0.5 + torch.rand(value.shape, generator=generator).to(value)
        drawn[name] = value
    return _named(drawn)


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.backbone.{name}": tensor for name, tensor in tensors.items()}


@contextmanager
def _modes_kept(network: PrunableNetwork) -> Iterator[None]:
    """Restore the mode of each module."""
    before = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode

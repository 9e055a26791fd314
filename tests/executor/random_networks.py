"""Networks put together by chance, and the check that every way to run them answers alike.

A network is drawn as a `Spec`, plain data that hypothesis shrinks to a minimal one when a check
fails. All ways are held against masked execution by plain PyTorch.

Dimensions: B images, C channels, H W pixels, L sites, K classes.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from runtime_pruning.errors import TracingError
from runtime_pruning.executor import deploy
from runtime_pruning.executor.agreement import check_modes, check_policy
from runtime_pruning.executor.native.poison import poisoned
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.saliency import SubsetPolicy, saliency_policy

CLASSES, GROUPS = 5, 3

Pick = Callable[[], nn.Module]
ACTIVATIONS: dict[str, Pick] = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.7),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "leaky in place": lambda: nn.LeakyReLU(0.1, inplace=True),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "silu in place": lambda: nn.SiLU(inplace=True),
    "hardswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
    "prelu": nn.PReLU,
    "dropout": lambda: nn.Dropout(0.3),
}
Kind = Literal["plain", "residual", "cat", "gate", "shared", "two names"]
Shortcut = Literal["identity", "conv1", "conv3", "pool"]
Join = Literal["+", "torch.add", "iadd"]
Pool = Literal["none", "max", "max ceil", "average", "max 3"]
Head = Literal["mean", "mean of tensor", "flat", "two layers", "view"]


@dataclass(frozen=True)
class Conv:
    """A convolution with what follows it."""

    channels: int = 4
    kernel: int = 3
    stride: int = 1
    groups: Literal["one", "two", "depthwise"] = "one"
    bias: bool = False
    padding: Literal["same", "none", "word", "reflect"] = "same"
    dilation: int = 1
    order: Literal["norm act", "act norm", "act", "norm", "nothing"] = "norm act"
    act: str = "relu"


@dataclass(frozen=True)
class Block:
    """Some convolutions, and how their result joins what they read."""

    kind: Kind = "plain"
    convs: tuple[Conv, ...] = (Conv(),)
    shortcut: Shortcut = "identity"
    join: Join = "+"
    after: str = "none"
    pool: Pool = "none"


@dataclass(frozen=True)
class Spec:
    """A whole network."""

    blocks: tuple[Block, ...] = (Block(), Block())
    head: Head = "mean"
    stem: int = 4
    image: tuple[int, int, int] = (3, 8, 8)
    align: int = 1
    seed: int = 0


def convs() -> st.SearchStrategy[Conv]:
    """Draw a convolution; the first of each choice is the simplest."""
    return st.builds(
        Conv,
        channels=st.sampled_from((4, 3, 6, 8, 16, 17, 24)),
        kernel=st.sampled_from((3, 1, 5, 7)),
        stride=st.sampled_from((1, 1, 1, 2)),
        groups=st.sampled_from(("one", "one", "one", "one", "two", "depthwise")),
        bias=st.booleans(),
        padding=st.sampled_from(("same", "same", "same", "none", "word", "reflect")),
        dilation=st.sampled_from((1, 1, 1, 1, 2)),
        order=st.sampled_from(("norm act", "act norm", "act", "norm", "nothing")),
        act=st.sampled_from(tuple(ACTIVATIONS)),
    )


def blocks() -> st.SearchStrategy[Block]:
    """Draw a block."""
    kinds = ("plain", "residual", "residual", "residual", "cat", "gate", "shared", "two names")
    return st.builds(
        Block,
        kind=st.sampled_from(kinds),
        convs=st.lists(convs(), min_size=1, max_size=3).map(tuple),
        shortcut=st.sampled_from(("identity", "conv1", "conv3", "pool")),
        join=st.sampled_from(("+", "torch.add", "iadd")),
        after=st.sampled_from(tuple(ACTIVATIONS)),
        pool=st.sampled_from(("none", "none", "max", "max ceil", "average", "max 3")),
    )


def specs() -> st.SearchStrategy[Spec]:
    """Draw a network."""
    return st.builds(
        Spec,
        blocks=st.lists(blocks(), min_size=1, max_size=4).map(tuple),
        head=st.sampled_from(("mean", "mean of tensor", "flat", "two layers", "view")),
        stem=st.sampled_from((4, 3, 8, 16)),
        image=st.sampled_from(((3, 8, 8), (1, 9, 7), (3, 12, 12))),
        align=st.sampled_from((1, 4)),
        seed=st.integers(0, 3),
    )


# Building


class _Conv(nn.Module):
    """A `Conv` on so many inputs."""

    def __init__(self, spec: Conv, inputs: int, *, keep_size: bool = False) -> None:
        super().__init__()
        groups = {"one": 1, "two": 2, "depthwise": inputs}[spec.groups]
        outputs = inputs if spec.groups == "depthwise" else spec.channels
        groups = groups if inputs % groups == 0 and outputs % groups == 0 else 1
        stride = 1 if keep_size else spec.stride
        around: Any = spec.dilation * (spec.kernel // 2)
        mode = "zeros"
        if spec.padding == "none" and not keep_size and spec.kernel <= 3 and spec.dilation == 1:
            around = 0
        elif spec.padding == "word" and stride == 1:
            around = "same"
        elif spec.padding == "reflect" and spec.kernel == 3 and spec.dilation == 1:
            mode = "reflect"
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            spec.kernel,
            stride,
            around,
            spec.dilation,
            groups,
            spec.bias,
            padding_mode=mode,
        )
        parts: dict[str, nn.Module] = {
            "norm": nn.BatchNorm2d(outputs),
            "act": ACTIVATIONS[spec.act](),
        }
        order = [] if spec.order == "nothing" else spec.order.split()
        self.rest = nn.Sequential(*(parts[name] for name in order))
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv(x))


class _Block(nn.Module):
    """A `Block` on so many inputs."""

    def __init__(self, spec: Block, inputs: int) -> None:
        super().__init__()
        keep = spec.kind in ("residual", "shared", "two names", "gate")
        layers, width = [], inputs
        for each in spec.convs:
            layers.append(_Conv(each, width, keep_size=keep or spec.kind == "cat"))
            width = layers[-1].outputs
        self.kind, self.join, self.outputs = spec.kind, spec.join, width
        self.branch = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if spec.kind == "residual":
            self.shortcut = _shortcut(spec, inputs, width)
        if spec.kind == "cat":
            self.other = _Conv(spec.convs[0], inputs, keep_size=True)
            self.outputs = width + self.other.outputs
        if spec.kind == "gate":
            self.squeeze = nn.Conv2d(width, max(1, width // 2), 1)
            self.excite = nn.Conv2d(max(1, width // 2), width, 1)
        if spec.kind == "shared":
            self.again = _Conv(Conv(channels=width, act="relu"), width, keep_size=True)
        if spec.kind == "two names":
            self.last = nn.Conv2d(width, width, 3, padding=1)
        self.after = ACTIVATIONS[spec.after]()

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "cat":
            return self.after(torch.cat((self.branch(x), self.other(x)), 1))
        y = self.branch(x)
        if self.kind == "residual":
            return self.after(_join(self.join, y, self.shortcut(x)))
        if self.kind == "gate":
            pooled = functional.adaptive_avg_pool2d(y, 1)
            return self.after(y * torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled)))))
        if self.kind == "shared":
            return self.after(self.again(self.again(y)))
        if self.kind == "two names":  # the activation may be in place, and `y` is read again
            return y + self.last(self.after(y))
        return self.after(y)


def _shortcut(spec: Block, inputs: int, outputs: int) -> nn.Module:
    """Return what brings the input of a residual block to the width of its branch."""
    if spec.shortcut == "conv3":
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
    if spec.shortcut == "pool" and inputs == outputs:
        return nn.MaxPool2d(3, 1, 1)
    if spec.shortcut == "identity" and inputs == outputs:
        return nn.Identity()
    return nn.Conv2d(inputs, outputs, 1, bias=False)


def _join(how: Join, one: Tensor, other: Tensor) -> Tensor:
    if how == "iadd":
        return operator.iadd(one, other)
    return torch.add(one, other) if how == "torch.add" else one + other


_POOLS: dict[str, Pick] = {
    "none": nn.Identity,
    "max": lambda: nn.MaxPool2d(2),
    "max ceil": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "average": lambda: nn.AvgPool2d(2),
    "max 3": lambda: nn.MaxPool2d(3, 1, 1),
}


class RandomNetwork(nn.Module):
    """The network of a `Spec`."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        width, sample = spec.stem, torch.zeros(2, *spec.image)
        self.stem = nn.Conv2d(spec.image[0], width, 3, padding=1)
        body: list[nn.Module] = []
        sample = self.stem(sample)
        for each in spec.blocks:
            block = _Block(each, width)
            try:
                found = block(sample.clone())
            except RuntimeError:  # a kernel that is larger than what is left of the image
                break
            pool = _POOLS[each.pool]() if min(found.shape[2:]) > 2 else nn.Identity()
            body += [block, pool]
            sample, width = pool(found), block.outputs
        self.body = nn.Sequential(*body)
        self.head = spec.head
        flat = spec.head in ("flat", "view")
        features = width * sample[0, 0].numel() if flat else width
        self.first = nn.Linear(features, 7) if spec.head == "two layers" else nn.Identity()
        self.last = nn.Linear(7 if spec.head == "two layers" else features, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(self.stem(images))
        if self.head == "flat":
            x = torch.flatten(x, 1)
        elif self.head == "view":
            x = x.view(x.size(0), -1)
        elif self.head == "mean of tensor":
            x = x.mean((2, 3))
        else:
            x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.last(functional.relu(self.first(x)) if self.head == "two layers" else x)


@torch.no_grad()
def build(spec: Spec) -> nn.Module:
    """Return the network of a spec in evaluation mode, all its numbers drawn from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = RandomNetwork(spec)
        for module in network.modules():
            if isinstance(module, NORMS):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.normal_(0, 0.2)
    return network.eval()


# Checking


class MeanPolicy:
    """Decides by the mean of what it is shown; a decision in 16 bits may differ by rounding."""

    name, macs_per_image = "mean", 0

    def start(self, batch: int) -> "MeanPolicy":
        """Return itself: it remembers nothing."""
        return self

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``."""
        return ((features_BF.double().mean(1) * 5).floor().long() + site) % GROUPS + 1


@torch.no_grad()
def salient(network: PrunableNetwork, seed: int) -> SubsetPolicy:
    """Return a policy that keeps none to all of a site's channels, about half of them in all."""
    policy = saliency_policy(network, init_scale=1.0, seed=seed)
    for site in range(len(network.sites)):
        policy.branch(site).expand.bias.normal_(
            1, 0.5, generator=torch.Generator().manual_seed(site)
        )
    policy.thresholds_L.fill_(1.0)
    return policy


@torch.no_grad()
def check(spec: Spec, dtypes: Iterable[torch.dtype] = (torch.float32, torch.bfloat16)) -> str:
    """Run a network in all ways; return "right", or why it was refused.

    Memory that nobody wrote holds NaN meanwhile.

    Raises:
        AssertionError: two ways of plain PyTorch differ.
        ContractError: a deployed mode differs; the message says which, and by how much.
    """
    backbone = build(spec)
    images_BCHW = torch.rand(9, *spec.image, generator=torch.Generator().manual_seed(spec.seed))
    plain_BK = backbone(images_BCHW)
    try:
        network = trace(backbone, spec.image, groups=GROUPS, align=spec.align).eval()
    except TracingError as error:
        return str(error)
    plans = plans_of(network, len(images_BCHW))
    near(network.run(images_BCHW, plans["full"]).logits_BK, plain_BK, "staged at full width")
    for plans_BL in plans.values():
        plain_ways_agree(network, images_BCHW, plans_BL)
    with poisoned():
        for dtype in dtypes:
            deployed = deploy(network, dtype=dtype)
            for plans_BL in plans.values():
                for size in (9, 4, 1):
                    check_modes(deployed, network, images_BCHW[:size], plans_BL[:size])
            if dtype == torch.float32:
                check_policy(deployed, network, images_BCHW, MeanPolicy())
            if dtype == torch.float32 or deployed.engine.runs_subsets:
                check_policy(deployed, network, images_BCHW[:4], salient(network, spec.seed))
    return "right"


def plans_of(network: PrunableNetwork, batch: int) -> dict[str, Tensor]:
    """Return plans by name, each ``plans_BL``."""
    size = (batch, len(network.sites))
    mixed_BL = torch.randint(1, GROUPS + 1, size, generator=torch.Generator().manual_seed(7))
    return {
        "mixed": mixed_BL,
        "alike": mixed_BL[:1].expand(batch, -1),
        "narrow": torch.ones_like(mixed_BL),
        "full": torch.full_like(mixed_BL, GROUPS),
    }


def plain_ways_agree(network: PrunableNetwork, images_BCHW: Tensor, plans_BL: Tensor) -> None:
    """Hold sliced execution against masked execution, and its MACs against torch's counter."""
    masked = network.run(images_BCHW, plans_BL, mode="masked")
    with FlopCounterMode(display=False) as counter:
        sliced = network.run(images_BCHW, plans_BL, mode="sliced")
    near(sliced.logits_BK, masked.logits_BK, "sliced against masked")
    macs = int(sliced.executed_macs_B.sum())
    assert counter.get_total_flops() == 2 * macs, "MACs by torch's counter"


def near(found_BK: Tensor, expected_BK: Tensor, where: str) -> None:
    """Raise unless logits agree in float32, relative to the largest expected one."""
    scale = expected_BK.abs().max().clamp(min=1e-3)
    error = float((found_BK - expected_BK).abs().max() / scale)
    assert error <= 1e-4, f"{where}: off by {error:.2g} of the largest logit"

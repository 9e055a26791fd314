"""What cannot be pruned stays whole, with the reason; what hides no channels is followed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import TracingError
from runtime_pruning.network import PrunableNetwork, order_channels, trace
from runtime_pruning.testing.network import close

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Three convolutions and a linear layer; what lies after the third is given."""

    def __init__(self, between: Callable[[Tensor], Tensor], features: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(features, 10)
        self.between = between

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.between(self.third(self.second(self.first(images)))))


def pooled(features: Tensor) -> Tensor:
    return features.mean((2, 3))


def sites(network: PrunableNetwork) -> list[str]:
    return [site.name for site in network.sites]


def reasons(network: PrunableNetwork) -> dict[str, str]:
    return {no.name: no.reason for no in network.graph.no_sites}


@torch.no_grad()
def agrees(network: PrunableNetwork) -> None:
    """Fail unless every way to run the network means the same, ordering included."""
    network = network.double().eval()
    images_BCHW = torch.rand(3, *network.image_shape, dtype=torch.float64)
    plain_BK = network.backbone(images_BCHW)
    full_BL = torch.full((3, len(network.sites)), network.groups)
    close(network.run(images_BCHW, full_BL).logits_BK, plain_BK)
    plans_BL = torch.randint(1, network.groups + 1, full_BL.shape)
    sliced, masked = (network.run(images_BCHW, plans_BL, mode=m) for m in ("sliced", "masked"))
    close(sliced.logits_BK, masked.logits_BK)
    order_channels(network)
    close(network.backbone(images_BCHW), plain_BK)


NEEDS = "reads its channels and needs all of them"


@pytest.mark.parametrize(
    ("between", "features", "reason"),
    [
        (lambda x: pooled(torch.cat([x, x], 1)), 16, rf"node 'cat' (cat) {NEEDS}"),
        (lambda x: pooled(torch.cat(x.chunk(2, 1)[::-1], 1)), 8, f"node 'chunk' (chunk) {NEEDS}"),
        (lambda x: pooled(torch.split(x, 4, 1)[1]), 4, f"node 'split' (split) {NEEDS}"),
        (lambda x: pooled(x.softmax(1)), 8, f"node 'softmax' (softmax) {NEEDS}"),
        (lambda x: x.mean((1, 2)), 8, f"node 'mean' (mean) {NEEDS}"),
        (lambda x: pooled(x * x.mean((2, 3), keepdim=True).sigmoid()), 8, "node 'mul'"),
        (lambda x: pooled(functional.pad(x, (0, 0, 0, 0, 1, 1))), 10, f"node 'pad' (pad) {NEEDS}"),
        (
            lambda x: pooled(torch.einsum("bchw,cd->bdhw", x, torch.eye(8).to(x.dtype))),
            8,
            "node 'einsum'",
        ),
        (lambda x: pooled(functional.group_norm(x, 2)), 8, "node 'group_norm' (group_norm)"),
        (lambda x: pooled(functional.instance_norm(x)) + 1, 8, "node 'instance_norm'"),
        (lambda x: pooled(functional.layer_norm(x, [8, 8, 8])), 8, "node 'layer_norm'"),
        (lambda x: pooled(x.flip(1)), 8, "node 'flip' (flip)"),
        (
            lambda x: pooled(x.view(x.shape[0], 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)),
            *(8, "node 'view' (reshape)"),
        ),
    ],
)
def test_what_feeds_what_cannot_follow_stays_whole(
    between: Callable[[Tensor], Tensor], features: int, reason: str
) -> None:
    network = trace(Net(between, features), SHAPE)
    assert sites(network) == ["second"]
    told = reasons(network)
    assert told["first"] == "nothing has been seen before it"
    assert reason in told["third"]
    agrees(network)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.view(-1, 512),
        lambda x: x.reshape(x.size(0), x.size(1) * x.shape[2] * x.shape[3]),
        lambda x: x.flatten(1, -1),
    ],
)
def test_each_way_to_flatten_is_one(between: Callable[[Tensor], Tensor]) -> None:
    network = trace(Net(between, 512), SHAPE)
    assert sites(network) == ["second", "third"]
    agrees(network)


@pytest.mark.parametrize(
    "between",
    [
        lambda x: functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
        lambda x: functional.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
        lambda x: functional.avg_pool2d(functional.pad(x, (1, 1, 2, 0)), 10).sum((2, 3)),
        lambda x: (0.5 * x + 1).abs().amax((-1, -2)),
    ],
)
def test_what_keeps_channels_apart_is_followed(between: Callable[[Tensor], Tensor]) -> None:
    network = trace(Net(between), SHAPE)
    assert sites(network) == ["second", "third"]
    agrees(network)


def test_one_whole_part_of_a_sum_keeps_the_other_a_site() -> None:
    class Summed(Net):
        def forward(self, images: Tensor) -> Tensor:
            x = self.first(images)
            one, other = self.second(x), self.third(x.relu())
            return self.linear(pooled(torch.cat([one + other, x], 1)))

    network = trace(Summed(pooled, 16), SHAPE)
    assert sites(network) == ["third"]
    assert "'cat'" in reasons(network)["second"]
    agrees(network)


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.LocalResponseNorm(3)]
)
def test_no_norm_over_channels_is_pruned_across(norm: nn.Module) -> None:
    class Normed(Net):
        def __init__(self) -> None:
            super().__init__(pooled)
            self.norm = norm

        def forward(self, images: Tensor) -> Tensor:
            x = self.norm(self.second(self.first(images)))
            return self.linear(pooled(self.third(x.relu()) + 1))

    network = trace(Normed(), SHAPE)
    assert sites(network) == ["third"]
    assert f"({type(norm).__name__} 'norm')" in reasons(network)["second"]
    agrees(network)


class Widened(Net):
    """A depthwise layer with multiplier 2, added to what a convolution makes."""

    def __init__(self, *, before: bool) -> None:
        super().__init__(pooled, 16)
        self.widen = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.beside = nn.Conv2d(8, 16, 3, padding=1)
        self.before = before

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(images)
        y = self.second(x.relu())
        return self.linear(pooled(self.widen(y if self.before else x) + self.beside(y)).relu())


@pytest.mark.parametrize("before", [False, True])
def test_a_depthwise_layer_that_widens_may_end_in_an_add(before: bool) -> None:
    network = trace(Widened(before=before), SHAPE)
    assert sites(network)[-1] == "beside" or "'add'" in str(reasons(network))
    agrees(network)


def test_a_grouped_convolution_and_what_it_reads_stay_whole() -> None:
    class Grouped(Net):
        def __init__(self) -> None:
            super().__init__(lambda x: pooled(self.grouped(x)))
            self.grouped = nn.Conv2d(8, 8, 3, groups=2)

    network = trace(Grouped(), SHAPE)
    assert sites(network) == ["second"]
    assert reasons(network)["grouped"] == "it has 2 groups"
    assert "node 'grouped' (Conv2d 'grouped')" in reasons(network)["third"]
    agrees(network)


def test_a_convolution_narrower_than_its_groups_stays_whole() -> None:
    class Narrow(Net):
        def __init__(self) -> None:
            super().__init__(lambda x: pooled(self.narrow(x)), 2)
            self.narrow = nn.Conv2d(8, 2, 3)

    network = trace(Narrow(), SHAPE)
    assert sites(network) == ["second", "third"]
    assert reasons(network)["narrow"] == "it has fewer channels (2) than groups (4)"
    with pytest.raises(TracingError, match=r"No site found.*'second': it has fewer channels \(8\)"):
        trace(Net(pooled), SHAPE, groups=9)


def test_macs_of_operations_that_are_no_modules_are_counted() -> None:
    kernel = torch.rand(8, 4, 3, 3)
    network = trace(Net(lambda x: pooled(functional.conv2d(x, kernel, groups=2))), SHAPE)
    # 8x8 pixels: 3*8*9 and twice 8*8*9; 6x6 pixels: 8 outputs that read 4*9; 8*10.
    assert dense_macs(network) == 64 * (216 + 2 * 576) + 36 * 8 * 36 + 80
    run = network.run(torch.rand(2, *SHAPE), torch.full((2, 1), 4))
    assert run.executed_macs_B.tolist() == [dense_macs(network)] * 2
    assert "'conv2d'" in reasons(network)["third"]

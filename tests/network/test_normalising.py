"""Nothing in place, and training modes as they are asked: by hand, and against plain PyTorch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime_pruning.errors import TracingError
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.testing.network import close

SHAPE = (3, 6, 6)
Between = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """Three convolutions and a linear layer; how they are joined is given."""

    def __init__(self, body: Between) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.c3 = nn.Conv2d(8, 8, 3, padding=1)
        self.inplace = nn.ReLU(inplace=True)
        self.leaky = nn.LeakyReLU(0.3, inplace=True)
        self.linear = nn.Linear(8, 5)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.body(self, self.c1(images)).mean((2, 3)))


@torch.no_grad()
def agrees(network: PrunableNetwork) -> None:
    """Fail unless staged and deployed runs at full width are the plain backbone."""
    images_BCHW = torch.rand(3, *SHAPE)
    plain_BK = network.eval().backbone(images_BCHW)
    full_BL = torch.full((3, len(network.sites)), network.groups)
    for mode in ("sliced", "masked"):
        close(network.run(images_BCHW, full_BL, mode=mode).logits_BK, plain_BK)
    deployed = deploy(network)
    for mode in deployed.modes:
        close(deployed.run(images_BCHW, full_BL, mode=mode).logits_BK, plain_BK)


def two_names(net: Net, x: Tensor) -> Tensor:
    k = g = net.c2(x)
    g += 1.0
    return net.c3(k) + g


def two_names_times(net: Net, x: Tensor) -> Tensor:
    k = g = net.c2(x)
    g *= 2.0
    g -= x
    return net.c3(k)


def second_reader(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    return h + net.c3(net.inplace(h))


def second_reader_leaky(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    return net.c3(net.leaky(h)) + h


def reader_before(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    before = net.c3(h)
    return before + net.inplace(h)


def by_method(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    h.relu_()
    return net.c3(h.clamp_(max=0.2)) + h


def by_function(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    functional.relu(h, inplace=True)
    torch.relu_(h)
    functional.leaky_relu_(h, 0.5)
    return net.c3(functional.hardtanh(h, 0.0, 0.1, True)) + h


def through_a_view(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    flat = h.flatten(2)
    h.relu_()
    return net.c3(h) + flat.view(h.shape[0], 8, 6, 6)


def through_nothing(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    same = functional.dropout(h, 0.5, net.training)
    again = h.contiguous()
    h.mul_(3)
    return net.c3(again) + same if net.training is None else net.c3(again)


def images_themselves(net: Net, x: Tensor) -> Tensor:
    x.add_(1)
    return net.c3(net.c2(x)) + x


IN_PLACE: list[Between] = [
    *(two_names, two_names_times, second_reader, second_reader_leaky, reader_before, by_method),
    *(by_function, through_a_view, through_nothing, images_themselves),
]


@pytest.mark.parametrize("body", IN_PLACE)
def test_a_write_is_seen_by_all_who_read_later(body: Between) -> None:
    agrees(trace(Net(body), SHAPE, groups=2))


@torch.no_grad()
def test_the_right_value_by_hand() -> None:
    net = Net(second_reader)
    for parameter in net.parameters():
        parameter.zero_()
    net.c2.bias.copy_(torch.tensor([-1.0, 2.0] * 4))  # h, before and after its ReLU
    net.c3.bias.fill_(5.0)
    net.linear.weight.copy_(torch.eye(5, 8))
    network = trace(net, SHAPE, groups=2).eval()
    logits_1K = network.run(torch.rand(1, *SHAPE), torch.tensor([[2, 2]])).logits_BK
    assert logits_1K.tolist() == [[5, 7, 5, 7, 5]]  # relu(h) + 5, not h + 5


def test_gradients_are_those_of_the_plain_backbone() -> None:
    for body in (second_reader, two_names):
        network = trace(Net(body), SHAPE, groups=2).train()
        images_BCHW = torch.rand(2, *SHAPE)
        torch.autograd.backward(network.backbone(images_BCHW).square().sum())
        plain = [p.grad for p in network.backbone.parameters()]
        network.zero_grad()
        run = network.run(images_BCHW, torch.full((2, len(network.sites)), 2))
        torch.autograd.backward(run.logits_BK.square().sum())
        for parameter, expected in zip(network.backbone.parameters(), plain, strict=True):
            if expected is not None:
                assert parameter.grad is not None
                close(parameter.grad, expected)


def part_of_it(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    h[:, :4].relu_()
    return net.c3(h)


def by_index(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    h[:, 0] = 0
    return net.c3(h)


def copied_over(net: Net, x: Tensor) -> Tensor:
    h = net.c2(x)
    h.copy_(x)
    return net.c3(h)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (part_of_it, r"Node 'relu_?' writes to 'getitem', of whose memory 'c2' is another part"),
        (by_index, r"Node 'setitem' .* writes to 'c2'.*let it return a new tensor"),
        (copied_over, r"Node 'copy_' .* writes to 'c2'.*let it return a new tensor"),
    ],
)
def test_a_write_that_cannot_be_followed_is_refused(body: Between, message: str) -> None:
    with pytest.raises(TracingError, match=message):
        trace(Net(body), SHAPE)


@torch.no_grad()
def test_a_view_does_not_ask_for_a_layout() -> None:
    def shuffled(net: Net, x: Tensor) -> Tensor:
        halves = x.view(x.shape[0], 2, 4, 6, 6).transpose(1, 2)
        return net.c3(net.c2(halves.contiguous().view(x.shape[0], -1, 6, 6)))

    network = trace(Net(shuffled), SHAPE).eval().to(memory_format=torch.channels_last)
    images_BCHW = torch.rand(2, *SHAPE)
    expected_BK = network.backbone(images_BCHW)
    last_BCHW = images_BCHW.to(memory_format=torch.channels_last)
    close(network.run(last_BCHW, torch.full((2, 2), 4)).logits_BK, expected_BK)
    agrees(network.to(memory_format=torch.contiguous_format))


# Training mode


class Dropped(Net):
    def __init__(self) -> None:
        super().__init__(lambda net, x: net.c3(functional.dropout(net.c2(x), 0.5, net.training)))


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_a_functional_dropout_follows_the_mode(training: bool) -> None:
    network = trace(Dropped().train(training), SHAPE)
    assert network.backbone.training == training
    images_BCHW, full_BL = torch.rand(2, *SHAPE), torch.full((2, 2), 4)

    def run() -> Tensor:
        return network.run(images_BCHW, full_BL).logits_BK

    network.eval()
    assert torch.equal(run(), run())
    agrees(network)
    network.train()
    assert not torch.allclose(run(), run())


def branches(net: Net, x: Tensor) -> Tensor:
    return net.c3(net.c2(x)) if net.training else net.c3(x)


def always(net: Net, x: Tensor) -> Tensor:
    return net.c3(functional.dropout(net.c2(x), 0.5))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (branches, r"Node 'c3' is another in training \('c2'\).*branches on `self.training`"),
        (always, r"Node 'dropout' .* drops values in evaluation, too"),
    ],
)
def test_what_differs_by_mode_is_refused(body: Between, message: str) -> None:
    for training in (True, False):
        with pytest.raises(TracingError, match=message):
            trace(Net(body).train(training), SHAPE)


class Sometimes(nn.Module):
    """Does another thing in training: nothing is known of it but that it is called."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape[0], 1, 1, 1) if self.training else x


def test_a_module_that_branches_by_itself_is_called_whole() -> None:
    net: Any = Net(lambda net, x: net.c3(net.noise(net.c2(x))))
    net.noise = Sometimes()
    network = trace(net, SHAPE)
    assert [site.name for site in network.sites] == ["c3"]
    reason = {no.name: no.reason for no in network.graph.no_sites}["c2"]
    assert "(Sometimes 'noise') reads its channels" in reason
    agrees(network)

"""A network that would compute otherwise than its backbone is refused when it is traced."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning.errors import TracingError
from runtime_pruning.network import per_channel, trace
from runtime_pruning.network.verification import verify

SHAPE = (3, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.between: nn.Module = nn.ReLU()
        self.c3 = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, 5)

    def enter(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor) -> Tensor:
        x = self.between(self.norm(self.c2(self.c1(self.enter(images)))))
        return self.linear(self.c3(x).mean((2, 3)))


class Noisy(Net):
    def enter(self, images: Tensor) -> Tensor:
        return images + torch.rand(images.shape[1:])


class Alternating(Net):
    turn = 0

    def enter(self, images: Tensor) -> Tensor:
        self.turn += 1
        return images * self.turn


class BoundToItsBatch(Net):
    def enter(self, images: Tensor) -> Tensor:
        return images.permute(1, 0, 2, 3).reshape(3, 2, 36).permute(1, 0, 2).reshape(2, *SHAPE)


class Counting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def enter(self, images: Tensor) -> Tensor:
        calls: Any = self.calls
        calls += 1
        return images


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Noisy(), r"In evaluation, the traced network gives other logits"),
        (Alternating(), r"another in training|gives other logits than the backbone"),
        (BoundToItsBatch(), r"cannot run 3 images, after it ran 2"),
        (Counting(), r"forward writes to 'calls' by other means"),
    ],
)
def test_what_would_compute_otherwise_is_refused(backbone: nn.Module, message: str) -> None:
    with pytest.raises(TracingError, match=message):
        trace(backbone, SHAPE)


def test_a_rule_that_is_wrong_is_refused_at_the_site_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_it_is(module: nn.Module, features: Tensor, present_BC: Tensor | None) -> Tensor:
        return module(features)

    monkeypatch.setitem(per_channel._RULES, nn.Softmax2d, as_it_is)
    net = Net()
    net.between = nn.Softmax2d()
    with pytest.raises(TracingError, match=r"reaches site 1 \(c3\).*wrongly declared"):
        trace(net, SHAPE)


def test_a_declared_operation_of_ones_own_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.rand(8))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale[:, None, None]

    asked = list[int]()

    def scaled(module: Scaled, features: Tensor, present_BC: Tensor | None) -> Tensor:
        asked.append(features.shape[1])
        return features * module.scale[: features.shape[1], None, None]

    monkeypatch.setitem(per_channel._RULES, Scaled, scaled)
    net = Net()
    net.between = Scaled()
    network = trace(net, SHAPE).eval()
    assert [site.name for site in network.sites] == ["c2", "c3"]
    network.run(torch.rand(2, *SHAPE), torch.tensor([[1, 4], [1, 4]]))
    assert asked[-1] == 2  # channels of one group


def test_nothing_changes() -> None:
    network = trace(Net(), SHAPE).train()
    network.backbone.norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    verify(network)
    assert network.backbone.training
    assert not network.backbone.norm.training
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_was_changed_is_seen() -> None:
    network = trace(Net(), SHAPE)
    network.backbone.between = nn.Tanh()
    network._modules_by_path.clear()
    verify(network)
    network.backbone.forward = lambda images: Net.forward(network.backbone, images * 2)
    with pytest.raises(TracingError, match="In evaluation, the traced network gives other logits"):
        verify(network)

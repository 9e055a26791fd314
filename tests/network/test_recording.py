"""Shapes are numbers, the number of images is a value, and what cannot be followed is one call."""

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning.errors import TracingError
from runtime_pruning.network import trace
from runtime_pruning.network.recording import BATCH, record

SHAPE = (3, 6, 6)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm: nn.Module = nn.Identity()
        self.linear = nn.Linear(8, 5)

    def asked(self, x: Tensor) -> Tensor:
        return x

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.norm(self.c2(self.asked(self.c1(images)))).mean((2, 3)))


class AsksForShapes(Net):
    def asked(self, x: Tensor) -> Tensor:
        assert x.ndim == x.dim() == len(x.shape) == 4
        torch._assert(x.shape[0] > 0, "images are needed")
        images, channels, height, width = x.size()
        assert (channels, height, width) == (8, 6, 6) == x.shape[1:]
        assert x.shape[-2:].numel() == x.size(2) * x.size(-1) == 36
        if x.dtype == torch.float16 or x.shape[1] != 8:
            raise ValueError
        return x.view(images * 2, channels // 2, *x.shape[2:]).view(-1, channels, height, width)


def test_shapes_are_numbers_and_the_number_of_images_is_none() -> None:
    network = trace(AsksForShapes(), SHAPE).eval()
    for batch in (1, 4):
        images_BCHW = torch.rand(batch, *SHAPE)
        run = network.run(images_BCHW, torch.full((batch, 1), 4))
        torch.testing.assert_close(run.logits_BK, network.backbone(images_BCHW))
    assert not any("assert" in unit.output.name for unit in network.units)


def test_what_a_node_multiplies_and_writes_is_seen() -> None:
    class Writes(Net):
        def asked(self, x: Tensor) -> Tensor:
            x += 1
            return x

    net = Writes()
    found = record(net, torch.rand(BATCH, *SHAPE), frozenset(), training=False)
    nodes = {node.name: node for node in found.graph.nodes}
    macs = {name: found.macs[node] for name, node in nodes.items() if found.macs.get(node)}
    assert macs == {"c1": 36 * 3 * 8 * 9, "c2": 36 * 8 * 8 * 9, "linear": 40}
    assert found.writes == {nodes["iadd"]: [nodes["c1"]]}
    assert found.shapes[nodes["c2"]] == (BATCH, 8, 6, 6)
    assert all(not torch.is_tensor(v) or not v.requires_grad for v in net.buffers())


class NormAct(nn.BatchNorm2d):
    """A batch norm with dropout and activation of its own, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        x = nn.functional.batch_norm(
            *(x, self.running_mean, self.running_var, self.weight, self.bias),
            *(self.training, 0.1, self.eps),
        )
        return self.act(self.drop(x))


def test_a_batch_norm_with_its_own_activation_is_two_steps() -> None:
    net = Net()
    net.norm = NormAct(8)
    network = trace(net, SHAPE)
    (site,) = [unit for unit in network.units if unit.site is not None]
    assert [step.target for step in site.followers][:3] == ["norm", "norm.drop", "norm.act"]
    assert len(network.condition_batch_norm().sites) == 1


def test_a_subclass_that_computes_otherwise_is_not_its_base() -> None:
    class Centred(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return nn.functional.conv2d(input, weight, self.bias, padding=1)

    class Named(nn.Conv2d):
        """Computes what its base does."""

    class Softened(nn.ReLU):
        def forward(self, input: Tensor) -> Tensor:
            return input.softmax(1)

    net = Net()
    net.norm = nn.Sequential(Named(8, 8, 3), Softened(), Centred(8, 8, 3), Named(8, 8, 1))
    network = trace(net, SHAPE)
    assert [site.name for site in network.sites] == ["c2", "norm.3"]
    told = {no.name: no.reason for no in network.graph.no_sites}
    assert "'softmax'" in told["norm.0"]


def test_a_module_that_cannot_be_followed_is_one_call() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x) if float(x.detach().sum()) > -1e9 else x

    class After(Net):
        def __init__(self) -> None:
            super().__init__()
            self.looks = Looks()

        def asked(self, x: Tensor) -> Tensor:
            return self.looks(x)

    network = trace(After(), SHAPE)
    assert [site.name for site in network.sites] == ["c2"]
    told = {no.name: no.reason for no in network.graph.no_sites}
    assert told["looks.inside"].startswith("it is inside 'looks': torch.fx cannot follow Looks at")
    run = network.eval().run(torch.rand(1, *SHAPE), torch.tensor([[4]]))
    assert int(run.executed_macs_B[0]) == 36 * (3 * 8 * 9 + 64 + 8 * 8 * 9) + 40


def test_a_node_that_cannot_run_is_named() -> None:
    class Wrong(Net):
        def asked(self, x: Tensor) -> Tensor:
            return x @ torch.ones(5, 5)

    with pytest.raises(TracingError, match=r"Node 'matmul' .* cannot run"):
        trace(Wrong(), SHAPE)

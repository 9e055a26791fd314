"""From units to operations, on a network that is read by hand."""

import torch
from torch import Tensor, nn

from runtime_pruning.executor.ir.lowering import folded, lower
from runtime_pruning.executor.ir.patterns import MaxPool
from runtime_pruning.network import trace
from small_networks import residual


def test_batch_norm_activation_and_add_are_in_the_convolutions() -> None:
    lowered = lower(residual(), fused=True)
    first, inside, onto, linear = (op for stage in lowered.stages for op in stage)
    assert [op.kind for op in (first, inside, onto, linear)] == [*["convolution"] * 3, "linear"]
    assert first.activation.attr == inside.activation.attr == onto.activation.attr == "relu"
    assert (len(inside.norms), len(first.norms)) == (1, 0)
    assert onto.onto == first.output
    assert onto.conv_output is not None
    assert isinstance(onto.followers[0], MaxPool)
    assert [len(stage) for stage in lowered.stages] == [1, 3]  # before the decision, and after it
    assert lowered.sources == (first.output,)


def test_dropout_and_identity_leave_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
            self.drop, self.nothing = nn.Dropout(0.5), nn.Identity()
            self.linear = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            x = self.nothing(self.drop(self.first(images)))
            return self.linear(self.second(x).mean((2, 3)))

    lowered = lower(trace(Net().eval(), (1, 2, 2), groups=2, align=1).eval(), fused=True)
    assert [op.kind for stage in lowered.stages for op in stage] == [
        "convolution",
        "convolution",
        "linear",
    ]


def test_batch_norm_folds_into_weight_and_bias() -> None:
    norm = nn.BatchNorm2d(2, eps=0.0).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([1.0, -1.0]))
        norm.running_mean.copy_(torch.tensor([4.0, 1.0]))
        norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    weight, bias = folded(torch.tensor([[1.0], [2.0]]), torch.tensor([5.0, 7.0]), norm, None)
    assert weight.tolist() == [[1.0], [2.0]]  # scales are 2 / 2 and 3 / 3
    assert bias.tolist() == [2.0, 5.0]  # (5 - 4) * 1 + 1 and (7 - 1) * 1 - 1

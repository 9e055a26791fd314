"""Which adds a convolution does, and how they are taken apart again."""

from torch import Tensor, nn

from runtime_pruning.executor.ir.fusion import separate
from runtime_pruning.executor.ir.lowering import lower
from runtime_pruning.network import trace
from small_networks import residual


def test_a_fused_add_is_separated_into_what_it_was_made_of() -> None:
    onto = lower(residual(), fused=True).stages[1][1]
    alone, add = separate(onto)
    assert (alone.kind, alone.onto, alone.activation.attr) == ("convolution", None, "none")
    assert (add.kind, add.activation.attr, add.output) == ("add", "relu", onto.output)
    assert {value.name for value in add.inputs} == {alone.output.name, onto.onto.name}  # type: ignore[union-attr]
    assert separate(alone) == (alone,)


def test_a_value_with_a_second_reader_is_no_part_of_an_add() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
            self.linear = nn.Linear(4, 2)

        def forward(self, images: Tensor) -> Tensor:
            x = self.first(images)
            y = self.second(x)
            return self.linear(((x + y) + y).mean((2, 3)))

    network = trace(Net().eval(), (1, 2, 2), groups=2, align=1).eval()
    operations = [op for stage in lower(network, fused=True).stages for op in stage]
    assert all(op.onto is None for op in operations)
    assert [op.kind for op in operations].count("add") == 2

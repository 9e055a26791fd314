"""Programs of stages: one compiled call where all steps are native."""

import pytest
import torch

from deployed_networks import SHAPES, close, images, traced
from runtime_pruning.executor.commands.command_buffer import CommandBuffer, FreeSlots
from runtime_pruning.executor.commands.instruction import Opcode
from runtime_pruning.executor.deployed import deploy
from runtime_pruning.executor.kernels import selection
from runtime_pruning.executor.native import library


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["digits-cnn", "resnet20-cifar"])
@torch.no_grad()
def test_a_whole_network_is_one_compiled_call(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library.functions(dtype) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    monkeypatch.setattr(
        selection, "IN_BUFFER", 1.0
    )  # seconds: whatever oneDNN takes, ours is taken
    network = traced(name, SHAPES[name])
    deployed = deploy(network, dtype=dtype)
    for batch in (1, 3):
        images_BCHW = images(network, batch)
        for plan in ([4] * len(network.sites), [2] * len(network.sites)):
            for _ in range(2):
                found = deployed.static(plan)(images_BCHW)
            expected = network.run(images_BCHW, torch.tensor([plan] * batch)).logits_BK
            close(found, expected, 1e-4 if dtype == torch.float32 else 0.1)
            chain = deployed.engine.programs(batch).chain(tuple(plan))
            assert chain is not None
            assert list(map(type, chain.steps)) == [CommandBuffer, FreeSlots]
            assert (
                sum(instruction.kind == Opcode.LINEAR for instruction in chain.steps[0].steps) == 1
            )

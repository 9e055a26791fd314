"""Max pooling and global average pooling by the compiled library.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runtime_pruning.executor.commands.command_buffer import CommandBuffer
from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.patterns import MaxPool, Pool, pair
from runtime_pruning.executor.kernels.compiled import compiled_functions
from runtime_pruning.executor.kernels.data_movement import Size, movement, width_rows
from runtime_pruning.executor.native import abi


def pooling_instruction(
    pool: Pool, size: Size, slot: int, channels: Sequence[int], read: int = -1
) -> Instruction:
    """Return the native call of a pooling, from a slot to itself.

    Args:
        pool: which one.
        size: of what is read.
        slot: that holds it, and gets the result.
        channels: that it can have.
        read: see `Instruction`.
    """
    high, wide, room = size
    rows, slots = width_rows((0, count) for count in channels), (slot, slot)
    if isinstance(pool, MaxPool):
        module = pool.module
        around = (pair(part) for part in (module.kernel_size, module.stride, module.padding))
        frame = abi.Frame.over((high, wide), *around)
        return movement(Opcode.MAX_POOL, slots, frame, (room, room), rows, read=read)
    frame = abi.Frame.over((high, wide))
    instruction = movement(Opcode.AVERAGE, slots, frame, (room, room), rows, read=read)
    return instruction._replace(out=(room,))


class CompiledPooling:
    """A pooling by a native call where that runs, else by PyTorch's.

    Args:
        pool: which one.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._buffers: dict[tuple[torch.Size, torch.dtype], CommandBuffer] = {}

    def __call__(self, features_BCHW: Tensor) -> Tensor:
        """Return the features, pooled."""
        last = features_BCHW.is_contiguous(memory_format=torch.channels_last)
        if compiled_functions(features_BCHW) is None or features_BCHW.ndim < 4 or not last:
            return self._pool(features_BCHW)
        key = (features_BCHW.shape[1:], features_BCHW.dtype)
        if key not in self._buffers:
            channels, high, wide = features_BCHW.shape[1:]
            instruction = pooling_instruction(self._pool, (high, wide, channels), 0, [channels])
            self._buffers[key] = CommandBuffer([instruction], {0}, features_BCHW.dtype)
        state = [features_BCHW]
        self._buffers[key](state)
        return state[0]


def runnable(
    followers: Sequence[Callable[[Tensor], Tensor]],
) -> list[Callable[[Tensor], Tensor]]:
    """Return what follows a layer, its poolings by native calls."""
    return [CompiledPooling(each) if isinstance(each, Pool) else each for each in followers]

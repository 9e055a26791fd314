"""Batches whose images each run the channels that are salient for them: any subset of a site's.

A call decides a site by its branch, gathers the kept rows and columns of the weights, scales the
rows by their saliency, and convolves; image by image, in the compiled library. What only such calls
read lies compact, an image's kept channels first. What is added to a stream goes to its own places.
Calls that follow each other are one command buffer, across all sites.

Dimensions: B images, C and D channels, H W pixels, L layers that keep a row of their channels.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.executor.commands.command_buffer import (
    CommandBuffer,
    FreeSlots,
    NativeStep,
    coalesce,
)
from runtime_pruning.executor.commands.instruction import Instruction, Opcode, State, Step
from runtime_pruning.executor.ir.operations import NOTHING, Lowered, Operation
from runtime_pruning.executor.ir.patterns import only_pools, pooling_first
from runtime_pruning.executor.kernels.compiled import compiled_fits
from runtime_pruning.executor.kernels.data_movement import copied
from runtime_pruning.executor.kernels.pooling import pooling_instruction
from runtime_pruning.executor.native import abi, library
from runtime_pruning.executor.program.stage_programs import StagePrograms
from runtime_pruning.executor.program.steps import following
from runtime_pruning.network.saliency import SubsetPolicy
from runtime_pruning.network.subset_run import SubsetExecution
from runtime_pruning.network.traced import TracedNetwork

Bound = Step | NativeStep | FreeSlots


@dataclass
class SubsetBatch:
    """A batch on its way.

    Attributes:
        state: its values.
        kept_LBC: per layer and image, how many channels are kept, then which, int32.
        spent_B: MACs of the layers that run subsets, int64.
    """

    state: State
    kept_LBC: np.ndarray[Any, Any]
    spent_B: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        kept, room = self.kept_LBC.ctypes.data, self.kept_LBC.shape[2] - 1
        self._deciding = abi.DecisionState(kept=kept, room=room, spent=self.spent_B.ctypes.data)

    def run(self, steps: Sequence[Any]) -> None:
        """Run steps."""
        deciding = ctypes.addressof(self._deciding)
        for step in steps:
            if isinstance(step, CommandBuffer):
                step(self.state, None, None, deciding)
            else:
                step(self.state)


class SubsetProgram:
    """A network under one policy of salient channels.

    Args:
        network: in evaluation mode.
        policy: that decides; it must not change any more.
        programs: of the network; its weights and slots are used.
        carried: the site whose subset a value has, see `carried_subsets`.
        dtype: of weights and features.
    """

    def __init__(
        self,
        network: TracedNetwork,
        policy: SubsetPolicy,
        programs: StagePrograms,
        carried: dict[str, int],
        dtype: torch.dtype,
    ) -> None:
        policy.check_fits(network)
        self._network, self._policy, self._carried = network, policy, carried
        self._programs, self._dtype, self._slots = programs, dtype, programs.slots
        self._sites = len(network.sites)
        operations = [op for stage in programs.lowered.stages for op in stage]
        self._mixed = {v.name for op in operations if op.weight is not None for v in op.inputs}
        layers = [op for op in operations if op.weight is not None and touches(op, carried)]
        widest = max(max(op.weight.shape[0] for op in layers if op.weight is not None), 1)
        self._rows, self._room = self._sites + len(layers), widest
        most = max(site.channels for site in network.sites)
        self._bounds_LG = torch.arange(most + 1).expand(self._sites, -1)
        self._whole_macs = 0  # of layers that run all channels, per image
        self._steps: Sequence[Any] | None = None

    def run(self, images_BCHW: Tensor) -> SubsetExecution:
        """Run a batch that has entered."""
        if self._steps is None:
            self._steps = self._compile(torch.zeros_like(images_BCHW[:1]))
        batch = self._new(images_BCHW)
        batch.run(self._steps)
        kept_LBC = batch.kept_LBC[: self._sites]
        return SubsetExecution(
            logits_BK=batch.state[self._programs.logits_slot].float(),
            plans=kept_LBC[:, :, 0].T.astype(np.int64),
            macs=batch.spent_B + self._whole_macs,
            policy_macs=self._policy.macs_per_image,
            bounds_LG=self._bounds_LG,
            mode="subset",
            find_kept=lambda: self._masks(kept_LBC),
        )

    def _new(self, images_BCHW: Tensor) -> SubsetBatch:
        """Return a batch that has entered."""
        size = len(images_BCHW)
        return SubsetBatch(
            self._programs.new_state(images_BCHW),
            np.zeros((self._rows, size, self._room + 1), dtype=np.int32),
            np.zeros(size, dtype=np.int64),
        )

    def _masks(self, kept_LBC: np.ndarray[Any, Any]) -> tuple[Tensor, ...]:
        """Return ``kept_BC`` of each site."""
        masks = []
        for site, rows_BC in zip(self._network.sites, kept_LBC, strict=True):
            mask_BC = torch.zeros(len(rows_BC), site.channels, dtype=torch.bool)
            for image, row in enumerate(rows_BC):
                mask_BC[image, torch.from_numpy(row[1 : 1 + row[0]].astype(np.int64))] = True
            masks.append(mask_BC)
        return tuple(masks)

    # Binding

    def _compile(self, images_1CHW: Tensor) -> Sequence[Any]:
        """Return the steps of the network, bound by one image."""
        lowered, batch = self._programs.lowered, self._new(images_1CHW)
        index, row, macs, whole = 0, self._sites, 0, list[Bound]()
        for stage, operations in enumerate(lowered.stages):
            for op in operations:
                if op.weight is not None and touches(op, self._carried):
                    own = self._layer(op, index, batch, row if op.site is None else op.site)
                    row += op.site is None
                    batch.run(coalesce(own))
                else:
                    widths = {value.name: value.width.channels for value in op.widths}
                    bound = self._programs.binder.bind(op, index, widths, batch.state)
                    own, macs = list(bound.steps), macs + bound.macs
                whole += own
                index += 1
            whole.append(FreeSlots(tuple(self._programs.dead[stage])))
        self._whole_macs = macs
        return coalesce(whole)

    def _layer(self, op: Operation, index: int, batch: SubsetBatch, row: int) -> list[Bound]:
        """Return the steps of a layer that reads or makes a subset."""
        source, to = self._slots[op.source.name], self._slots[op.output.name]
        like = batch.state[source]
        if like.dtype != self._dtype:
            raise AssertionError("What a site reads has been cast by the layers before it.")
        instructions: list[Instruction] = []
        if op.onto is not None:
            instructions.append(self._stream(op, index, batch.state))
        instruction, size = self._instruction(op, like, row)
        instructions.append(instruction._replace(source=source, target=to))
        flat = op.kind == "linear"
        pools, rest = ([], list(op.followers)) if flat else pooling_first(op.followers)
        for pool in pools:
            instructions.append(pooling_instruction(pool, size, to, size[2:]))
            size = instructions[-1].out or ()
        steps: list[Bound] = [NativeStep(tuple(instructions), self._dtype)]
        return [*steps, following(to, rest)] if rest else steps

    def _stream(self, op: Operation, index: int, state: State) -> Instruction:
        """Return what makes the stream ready that a layer adds to."""
        onto, own, lowered = op.onto, op.conv_output, self._programs.lowered
        assert onto is not None
        assert own is not None
        slot, to = self._slots[onto.name], self._slots[op.output.name]
        channels, high, wide = state[slot].shape[1:]
        dies = lowered.last_reader[onto.name] == index and onto.name != op.source.name
        if dies and onto.name in lowered.owned and channels >= own.width.channels:
            return Instruction(Opcode.MOVE, slot, to)
        return copied((high, wide, channels), max(channels, own.width.channels), slot, to)

    def _instruction(
        self, op: Operation, like: Tensor, row: int
    ) -> tuple[Instruction, tuple[int, ...]]:
        """Return the call of a layer, between no slots yet, and the size of what it makes."""
        widths = {value.name: value.width.channels for value in op.widths}
        layer = self._programs.binder.layer(op, widths)
        weight = layer.weight if layer.weight.ndim == 4 else layer.weight[:, :, None, None]
        outputs, inputs = weight.shape[:2]
        weight_hwCD = weight.float().permute(2, 3, 1, 0).contiguous()
        bias_D = torch.zeros(outputs) if layer.bias is None else layer.bias.float().contiguous()
        adds, own = op.onto is not None, op.output if op.conv_output is None else op.conv_output
        held = [weight_hwCD, bias_D]
        subset = abi.Subset(weight_hwCD.data_ptr(), bias_D.data_ptr())
        subset.inputs, subset.outputs, subset.site = inputs, outputs, row
        subset.source = self._carried.get(op.source.name, -1)
        subset.scattered = adds or (op.site is not None and own.name not in self._mixed)
        if op.site is not None:
            held += self._branch(subset, op.site)
        if op.geometry is None:  # a linear layer
            frame, room = abi.ALONE, outputs
        else:
            around = op.geometry.stride, op.geometry.padding
            frame = abi.Frame.of(like, weight.shape[2:], *around)
            room = self._room_of(op, outputs)
        activation = op.activation if op.kind != "linear" else NOTHING
        call = frame.call(like.shape[1], room, activation.limits, add=adds)
        size = (room,) if op.geometry is None else (*frame.out, room)
        address, keepalive = ctypes.addressof(subset), (call, subset, held)
        instruction = Instruction(
            *(Opcode.SUBSET, 0, 0, None if adds else size, ctypes.addressof(call)),
            keepalive=keepalive,
            subset=address,
        )
        return instruction, size

    def _room_of(self, op: Operation, outputs: int) -> int:
        """Return the channels of what a convolution writes to."""
        return outputs if op.onto is None else max(outputs, op.onto.width.channels)

    def _branch(self, subset: abi.Subset, site: int) -> list[Tensor]:
        """Write a site's branch into its layer; return what that points to."""
        branch = self._policy.branch(site)
        parts = (branch.squeeze.weight.T, branch.expand.weight.T, branch.expand.bias)
        held = [part.detach().float().cpu().contiguous().clone() for part in parts]
        subset.squeeze, subset.expand, subset.expand_bias = (part.data_ptr() for part in held)
        subset.hidden, subset.most = branch.squeeze.out_features, branch.most
        subset.threshold = float(self._policy.thresholds_L[site])
        return held


def touches(op: Operation, carried: dict[str, int]) -> bool:
    """Whether an operation makes a subset, or reads one to mix its channels."""
    return op.site is not None or bool(op.inputs and op.source.name in carried)


def runs_subsets(lowered: Lowered, carried: dict[str, int], dtype: torch.dtype) -> bool:
    """Whether subsets of a network can run by compiled calls on this machine."""
    operations = [op for stage in lowered.stages for op in stage]
    if library.functions(dtype) is None or not all(_runs(op, carried) for op in operations):
        return False
    mixed = {value.name for op in operations if op.weight is not None for value in op.inputs}
    others = {
        v.name for op in operations for v in (op.reads if op.weight is None else op.reads[1:])
    }
    return not mixed & others & carried.keys()


def _runs(op: Operation, carried: dict[str, int]) -> bool:
    """Whether an operation has a form that runs subsets."""
    if op.weight is None:
        return op.kind != "follow" or op.source.name not in carried
    if not touches(op, carried):
        return True
    if op.conditional or op.source.factor != 1 or op.head_factor != 1:
        return False
    if op.kind == "linear":
        return True
    if op.kind != "convolution" or op.groups != 1:
        return False
    if not compiled_fits(op.geometry, op.weight, op.groups):
        return False
    if op.site is None or op.onto is not None:
        return True
    # A saliency goes through what follows where that keeps multiples and zero.
    return op.activation.attr in ("none", "relu") and only_pools(op.followers)

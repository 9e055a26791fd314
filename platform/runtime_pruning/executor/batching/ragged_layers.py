"""Layers at all their widths, for batches whose images each have their own.

Dimensions: B images, C channels, H W pixels.
"""

import ctypes

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.executor.batching.width_table import WidthTable
from runtime_pruning.executor.commands.instruction import Instruction, Opcode
from runtime_pruning.executor.ir.operations import NOTHING, Activation, Call, Operation
from runtime_pruning.executor.kernels.compiled import compiled_linear_runs
from runtime_pruning.executor.kernels.selection import linear
from runtime_pruning.executor.native import abi, library, packing
from runtime_pruning.executor.native.abi import Numbers
from runtime_pruning.executor.program.binder import Binder

SMALL = 1024 * 1024  # bytes of a linear layer's weights that stay in a cache
TINY = 64 * 1024  # likewise, in the first


class RaggedLinear:
    """A linear layer at all the widths that it reads.

    Args:
        op: the operation.
        binder: cuts and packs its weights.
        table: of the widths of values.
        dtype: of weights and features.

    Attributes:
        bytes: of its weights.
        macs: per vector, by place of the width.
    """

    def __init__(
        self, op: Operation, binder: Binder, table: WidthTable, dtype: torch.dtype
    ) -> None:
        own = library.functions(dtype)
        assert own is not None
        outputs = op.output.width.channels
        reads = table.options(op.source).channels.tolist()
        widths = [{op.source.name: read, op.output.name: outputs} for read in reads]
        self._layers = [binder.layer(op, width) for width in widths]
        self._outputs = self._layers[0].weight.shape[0]
        inputs = [layer.weight.shape[1] for layer in self._layers]
        self.macs = np.array(inputs, dtype=np.int64) * self._outputs
        self._packed = [binder.packed(op, layer) for layer in self._layers]
        self.bytes = self._layers[-1].weight.nbytes
        self._inputs = np.array(inputs, dtype=np.int64)
        shared = all(packed is self._packed[0] for packed in self._packed)
        self._even = shared and all(self._inputs * dtype.itemsize % 4 == 0)
        self._rows = abi.slices(
            packed.row(count, self._outputs)
            for packed, count in zip(self._packed, inputs, strict=True)
        )
        self._rows_at, self._widest_at = map(ctypes.addressof, (self._rows, self._rows[-1]))
        self._convolve, self._linear = own.convolve, own.linear
        self._calls: dict[int, Call] = {}
        self._rooms: dict[int, abi.Call] = {}

    def instruction(self, like: Tensor, source: int, target: int, read: int) -> Instruction:
        """Return the instruction that takes images one by one.

        Args:
            like: what it reads.
            source: slot.
            target: likewise.
            read: see `Record`.
        """
        addresses = self._room(like), self._rows_at
        out = (self._outputs,)
        return Instruction(Opcode.CONVOLVE, source, target, out, *addresses, read, keepalive=self)

    def call(self, features: Tensor, place_B: Numbers) -> Tensor:
        """Return what the layer makes of each image's first inputs."""
        if place_B.min() == place_B.max():
            return self._alike(features, int(place_B[0]))
        if self.bytes <= SMALL and features.ndim == 2:
            return self._each(features.contiguous(), place_B)
        if self._even and compiled_linear_runs(features):
            return self._together(features, place_B)
        found = np.unique(place_B)
        rows = [torch.from_numpy(np.flatnonzero(place_B == place)) for place in found]
        parts = [self._alike(features[own], place) for own, place in zip(rows, found, strict=True)]
        out = parts[0].new_empty(features.shape[0], *parts[0].shape[1:])
        for own, part in zip(rows, parts, strict=True):
            out[own] = part
        return out

    def _alike(self, features: Tensor, place: int) -> Tensor:
        """Return the result of images that share a width."""
        layer = self._layers[place]
        features = features[..., : layer.weight.shape[1]]
        if place not in self._calls:
            ours = self._packed[place] if compiled_linear_runs(features) else None
            self._calls[place] = linear(layer, ours, features)
        return self._calls[place](features)

    def _each(self, features_BC: Tensor, place_B: Numbers) -> Tensor:
        """Return the result of images of unlike widths, one by one: the weights stay in cache."""
        out = features_BC.new_empty(features_BC.shape[0], self._outputs)
        self._convolve(
            *(self._room(features_BC), self._rows_at, place_B.ctypes.data, None, 1, None),
            *(features_BC.data_ptr(), out.data_ptr(), len(out), torch.get_num_threads()),
        )
        return out

    def _together(self, features_BC: Tensor, place_B: Numbers) -> Tensor:
        """Return the result of images of unlike widths; the weights are read once for all."""
        order_B = np.argsort(-place_B, kind="stable")
        inputs_B = self._inputs[place_B[order_B]]
        rows_B = torch.from_numpy(order_B)
        features_BC = features_BC[rows_B]
        own = features_BC.new_empty(features_BC.shape[0], self._outputs)
        self._linear(
            *(self._room(features_BC), self._widest_at, inputs_B.ctypes.data),
            *(features_BC.data_ptr(), own.data_ptr(), len(own), torch.get_num_threads()),
        )
        out = torch.empty_like(own)
        out[rows_B] = own
        return out

    def _room(self, features_BC: Tensor) -> int:
        """Return the address of the call on vectors of this length."""
        room = features_BC.shape[1]
        found = self._rooms.get(room)
        if found is None:  # threads that come here at once take the same
            made = abi.ALONE.call(room, self._outputs, NOTHING.limits, add=False)
            found = self._rooms.setdefault(room, made)
        return ctypes.addressof(found)


class RaggedConvolution:
    """A convolution at all its widths.

    Args:
        op: the operation.
        binder: cuts its weights.
        table: of the widths of values.
        activation: what a call does to its result.
        features: that it reads, at full width.
        room: channels of the stream that it is added to; None: it is not added.

    Attributes:
        out: (H, W, C) of the result.
    """

    def __init__(
        self,
        op: Operation,
        binder: Binder,
        table: WidthTable,
        activation: Activation,
        features: Tensor,
        room: int | None,
    ) -> None:
        self._source = op.source
        self._target = op.output if op.conv_output is None else op.conv_output
        self._table = table
        reads = table.options(op.source).channels.tolist()
        writes = table.options(self._target).channels.tolist()
        assert op.weight is not None
        assert op.geometry is not None
        self._alone = op.kind == "depthwise"
        pack = packing.PackedDepthwise if self._alone else packing.Packed
        self._packed = []
        for read in reads if op.conditional else reads[-1:]:
            full = {op.source.name: read, self._target.name: read if self._alone else writes[-1]}
            layer = binder.layer(op, full)
            self._packed.append(pack(layer.weight, layer.bias))
        self._rows = abi.slices(
            self._packed[place if op.conditional else 0].row(read, write)
            for place, read in enumerate(reads)
            for write in ([read] if self._alone else writes)
        )
        self._writes = 1 if self._alone else len(writes)
        kernel = op.weight.shape[2:]
        frame = abi.Frame.of(features, kernel, op.geometry.stride, op.geometry.padding)
        self._adds = room is not None
        self.out = (*frame.out, writes[-1] if room is None else room)
        limits = activation.limits
        self._call = frame.call(features.shape[1], self.out[-1], limits, add=self._adds)

    def instruction(self, source: int, target: int) -> Instruction:
        """Return the instruction, between two slots."""
        table = self._table
        return Instruction(
            Opcode.DEPTHWISE if self._alone else Opcode.CONVOLVE,
            source,
            target,
            None if self._adds else self.out,
            call=ctypes.addressof(self._call),
            widths=ctypes.addressof(self._rows),
            read=table.index(self._source),
            write=-1 if self._alone else table.index(self._target),
            writes=self._writes,
            keepalive=self,
        )

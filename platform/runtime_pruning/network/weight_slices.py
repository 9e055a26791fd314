"""Slices of a layer's weights, prepared once per pair of widths instead of once per call."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runtime_pruning.network.graph import UnitKind


class Weights(NamedTuple):
    """The weights of a layer at a real width; the rows of ``weight`` are its outputs."""

    weight: Tensor
    bias: Tensor | None


class SliceCache:
    """Contiguous slices by layer and width, dropped when the weights change.

    Slices that autograd must see are views, made anew each time.
    """

    def __init__(self) -> None:
        self._prepared: dict[tuple[str, int, int], Weights] = {}
        self._stamp: tuple[Any, ...] = ()

    def clear(self) -> None:
        """Drop all slices."""
        self._prepared.clear()
        self._stamp = ()

    def refresh(self, weights: Iterable[Tensor]) -> None:
        """Drop all slices if one of these weights has changed since the last call."""
        if torch.is_grad_enabled():
            return
        stamp = tuple(_stamp(weight) for weight in weights)
        if stamp != self._stamp:
            self._prepared.clear()
            self._stamp = stamp

    def get(self, path: str, kind: UnitKind, module: Any, inputs: int, outputs: int) -> Weights:
        """Return a layer's weights for its first inputs and outputs.

        Args:
            path: of the layer in the backbone.
            kind: of the unit that it heads.
            module: the layer.
            inputs: elements along dimension 1 of what it reads.
            outputs: elements along dimension 1 of what it returns.
        """
        weight: Tensor = module.weight
        columns = weight.shape[1] if kind == "depthwise" else inputs // _groups(kind, module)
        if weight.shape[:2] == (outputs, columns):
            return Weights(weight, module.bias)
        if torch.is_grad_enabled():
            return _cut(module, outputs, columns)
        key = (path, inputs, outputs)
        found = self._prepared.get(key)
        if found is None:
            weight, bias = _cut(module, outputs, columns)
            layout = layout_of(module.weight)
            found = Weights(weight.contiguous(memory_format=layout), bias)
            self._prepared[key] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"_prepared": {}, "_stamp": ()}


def _groups(kind: UnitKind, module: Any) -> int:
    """Return by how much fewer inputs each output reads than there are."""
    return int(module.groups) if kind == "convolution" else 1


def _cut(module: Any, outputs: int, columns: int) -> Weights:
    """Return views of the first outputs and columns."""
    weight = module.weight[:outputs, :columns]
    return Weights(weight, None if module.bias is None else module.bias[:outputs])


def _stamp(weight: Tensor) -> tuple[int, int]:
    """Return what changes when a tensor is written to or replaced."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def layout_of(tensor: Tensor) -> torch.memory_format:
    """Return whether a tensor is laid out channels last, where that is not the same as first."""
    last = tensor.ndim == 4 and not tensor.is_contiguous()
    last = last and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format

"""Tensors in a safetensors file: plain data that runs no code when it is read."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name, from whatever device and in whatever layout, to ``path``."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)

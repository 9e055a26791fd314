"""The registry of backbones, and how one is created with or without published weights."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from runtime_pruning.errors import ConfigError, ContractError, DataError
from runtime_pruning.registry import Registry

WEIGHTS_ENV = "RUNTIME_PRUNING_WEIGHTS"


class BackboneFactory(Protocol):
    """What a backbone plugin is: one function.

    The module that it returns may carry the attribute ``weights_file``: the name of a safetensors
    file with its published weights. It may also have ``other_weights_files`` (names of files that
    torch can load, tried next) and ``download_weights()``, which returns a state dict and is asked
    where no file is found.
    """

    def __call__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
        """Return an untrained backbone for images of shape (C, H, W)."""
        ...


_registry: Registry[BackboneFactory] = Registry("backbone", "runtime_pruning.backbones")


def register(name: str) -> Callable[[BackboneFactory], BackboneFactory]:
    """Return a decorator that files a backbone factory under ``name``."""
    return _registry.register(name)


def get(name: str) -> BackboneFactory:
    """Return the factory filed under ``name``.

    Raises:
        UnknownNameError: nobody registered the name.
    """
    return _registry.get(name)


def names() -> list[str]:
    """Return the names of all known backbones, third-party ones included, sorted."""
    return sorted(_registry)


def create(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    weights_dir: Path | None = None,
    pretrained: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Return the backbone called ``name``, on the CPU, in training mode.

    Args:
        name: of a built-in backbone or of one that an entry point names.
        num_classes: length of the logits.
        image_shape: (C, H, W) of one image.
        weights_dir: folder of published weights; by default the environment variable
            ``RUNTIME_PRUNING_WEIGHTS`` names it.
        pretrained: load the published weights, every tensor of them.
        seed: of the initial weights; torch's global generator is left as it was.

    Raises:
        UnknownNameError: nobody registered the name.
        ConfigError: a size below one, fewer than two classes, or images that the backbone
            cannot take.
        DataError: the weights are missing, or do not fit the backbone.
        ContractError: the factory returned something other than a module from images to logits.
    """
    factory = get(name)
    if num_classes < 2:
        raise ConfigError(f"`num_classes >= 2` must hold, but got {num_classes}.")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ConfigError(f"`image_shape` must be (C, H, W), each >= 1, but got {image_shape}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = factory(num_classes=num_classes, image_shape=image_shape)
    if not isinstance(backbone, nn.Module):
        raise ContractError(f"The backbone {name!r} must be an nn.Module, but got {backbone!r}.")
    _check_shapes(name, backbone, num_classes, image_shape)
    if pretrained:
        _load_weights(name, backbone, weights_dir)
    return backbone


def _check_shapes(
    name: str, backbone: nn.Module, num_classes: int, image_shape: tuple[int, int, int]
) -> None:
    """Run one black image through; a backbone that fails here would fail in every worker."""
    was_training = backbone.training
    try:
        with torch.no_grad():
            logits_BK = backbone.eval()(torch.zeros(1, *image_shape))
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"The backbone {name!r} cannot take images of shape {image_shape}: {reason}"
        ) from error
    finally:
        backbone.train(was_training)
    if tuple(logits_BK.shape) != (1, num_classes):
        raise ContractError(
            f"The backbone {name!r} must return logits of shape (1, {num_classes}) for one image, "
            f"but got {tuple(logits_BK.shape)}."
        )


def _load_weights(name: str, backbone: nn.Module, weights_dir: Path | None) -> None:
    """Load all tensors of published weights; none may be missing, left over or misshapen."""
    path = _weights_path(name, backbone, weights_dir)
    where = repr(str(path)) if path else "the download"
    try:
        state = _downloaded(name, backbone) if path is None else _read(path)
        backbone.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"The weights in {where} do not fit: {reason}") from error


def _weights_path(name: str, backbone: nn.Module, weights_dir: Path | None) -> Path | None:
    """Return where the published weights lie, None to download them, or say what is missing."""
    file_name = getattr(backbone, "weights_file", None)
    if not isinstance(file_name, str):
        raise DataError(f"The backbone {name!r} has no published weights: train it instead.")
    folder = weights_dir or (Path(found) if (found := os.environ.get(WEIGHTS_ENV)) else None)
    others = getattr(backbone, "other_weights_files", ())
    for path in (folder / file for file in (file_name, *others)) if folder else ():
        if path.is_file():
            result: Path | None = path
            return result
    if hasattr(backbone, "download_weights"):
        return None
    if folder is None:
        raise DataError(
            f"The weights of {name!r} ({file_name}) need a folder: give `weights_dir`, "
            f"or set {WEIGHTS_ENV}."
        )
    raise DataError(
        f"The weights of {name!r} must be in {str(folder / file_name)!r}: no such file."
    )


def _read(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a file by name."""
    tensors: Mapping[str, Any] = (
        load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    return tensors


def _downloaded(name: str, backbone: Any) -> Mapping[str, Any]:
    """Return the weights from wherever the family downloads them."""
    try:
        result: Mapping[str, Any] = backbone.download_weights()
        return result
    except OSError as error:
        raise DataError(
            f"The weights of {name!r} cannot be downloaded ({error}): put the file "
            f"{backbone.weights_file!r} into a folder and set {WEIGHTS_ENV} to it."
        ) from error

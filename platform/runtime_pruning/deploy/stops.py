"""The stops of an exported bundle: points that share weights store them once.

The exported point's own files lie in the bundle's folder. Another point of the same trial differs
from it by its policy and by batch-norm statistics: its folder below ``stops`` holds a manifest, the
policy, and of the network only those tensors that differ.
"""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from runtime_pruning.deploy.bundle import NETWORK, read_manifest, write_manifest
from runtime_pruning.deploy.reading import AnyBundle, read_bundle
from runtime_pruning.deploy.sealed import sha256_of
from runtime_pruning.files import save_tensors

CHANGED = "changed.safetensors"
_OWN = ("policy", "files")  # what manifests of points with one structure differ in


def write_stop(source: Path, base: Path, folder: Path) -> None:
    """Store a point's bundle beside the one that is exported.

    Args:
        source: the point's bundle.
        base: the exported point's.
        folder: where to; created.
    """
    shutil.copytree(source, folder)
    if not _alike(source, base):
        return
    mine, shared = load_file(source / NETWORK), load_file(base / NETWORK)
    changed = {name: tensor for name, tensor in mine.items() if _differs(tensor, shared[name])}
    (folder / NETWORK).unlink()
    save_tensors(changed, folder / CHANGED)


def read_stop(base: Path, folder: Path) -> AnyBundle:
    """Return the point that `write_stop` stored.

    Raises:
        DataError: see `read_bundle`.
    """
    if not (folder / CHANGED).is_file():
        return read_bundle(folder)
    with tempfile.TemporaryDirectory(prefix="stop-") as name:
        whole = Path(name) / "bundle"
        shutil.copytree(folder, whole)
        save_tensors({**load_file(base / NETWORK), **load_file(folder / CHANGED)}, whole / NETWORK)
        facts = read_manifest(whole)
        # The card has verified the parts; another version of safetensors may order the whole anew.
        facts["files"] = {**facts["files"], NETWORK: sha256_of(whole / NETWORK)}
        write_manifest(whole, facts)
        return read_bundle(whole)


def _alike(source: Path, base: Path) -> bool:
    """Whether two bundles hold one network but for the values of its tensors."""
    first, second = (
        {name: value for name, value in read_manifest(each).items() if name not in _OWN}
        for each in (source, base)
    )
    return first == second and (source / NETWORK).is_file() and (base / NETWORK).is_file()


def _differs(first: torch.Tensor, second: torch.Tensor) -> bool:
    return not torch.equal(first, second)

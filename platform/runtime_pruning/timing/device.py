"""Which machine a time was taken on: a fingerprint, and a short key for names of metrics.

A latency means nothing without processor, dtype, threads, backend and version. Two hosts whose
fingerprints agree share a key, and with it their tables; all others do not.
"""

import hashlib
import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

# Instruction sets that change how fast a convolution runs.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")
_NOISE = re.compile(r"\((r|tm|c)\)|\b(cpu|gpu|processor|nvidia|core|with.*)\b|@", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """What a latency was measured on, and in which precision.

    Attributes:
        kind: ``"cpu"`` or ``"cuda"``.
        model: of the processor, as it calls itself.
        revision: family, model and stepping of a CPU, or the compute capability of a GPU.
        flags: instruction sets that matter, as far as the processor has them.
        threads: that one operation may use.
        dtype: of weights and images: ``"float32"``.
        backend: library that runs convolutions.
        torch_version: of PyTorch.
    """

    kind: str
    model: str
    revision: str
    flags: tuple[str, ...]
    threads: int
    dtype: str
    backend: str
    torch_version: str

    @property
    def key(self) -> str:
        """A name of lower-case letters, digits and dashes; equal only for equal devices."""
        told = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:6]
        parts = [_NOISE.sub(" ", self.model), f"t{self.threads}", self.dtype, self.backend, digest]
        return _slug(" ".join(parts))

    @property
    def fingerprint(self) -> dict[str, str]:
        """Everything by name, for the metadata of a table; the host's cores beside it."""
        told = {name: str(value) for name, value in asdict(self).items()}
        return {**told, "flags": " ".join(self.flags), "cores": str(os.cpu_count())}


def this_device(
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", *, calls: str = ""
) -> Device:
    """Return what a network of this dtype would run on here, with torch's threads as they are.

    Args:
        dtype: of weights and images.
        device: where the network runs.
        calls: which calls of the backend are used, where there are several kinds.
    """
    where, name = torch.device(device), str(dtype).removeprefix("torch.")
    version = torch.__version__
    if where.type == "cuda":
        major, minor = torch.cuda.get_device_capability(where)
        backend = f"cudnn{_of(torch.backends.cudnn).version()}"
        model = torch.cuda.get_device_name(where)
        backend = f"{backend} {calls}".strip()
        return Device("cuda", model, f"{major}.{minor}", (), 1, name, backend, version)
    cpu = _cpu()
    onednn = torch.backends.mkldnn.enabled and _of(torch.backends.mkldnn).is_available()
    backend = f"{'onednn' if onednn else 'native'} {calls}".strip()
    threads = torch.get_num_threads()
    return Device("cpu", cpu.model, cpu.revision, cpu.flags, threads, name, backend, version)


@dataclass(frozen=True)
class _Cpu:
    """What the system tells of its processor."""

    model: str
    revision: str
    flags: tuple[str, ...]


@cache
def _cpu() -> _Cpu:
    """Read the first processor's entry; systems without one tell less."""
    info = Path("/proc/cpuinfo")
    text = info.read_text().split("\n\n")[0] if info.exists() else ""
    told = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    names = ("cpu family", "cpu implementer"), ("model", "cpu part"), ("stepping", "cpu revision")
    parts = [next((told[name] for name in pair if name in told), "") for pair in names]
    model = told.get("model name") or platform.processor() or platform.machine()
    has = (told.get("flags") or told.get("features") or "").split()
    return _Cpu(model, "-".join(parts), tuple(flag for flag in _FLAGS if flag in has))


def _of(backend: Any) -> Any:
    """Return a backend's module, whose functions bear no types."""
    return backend


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

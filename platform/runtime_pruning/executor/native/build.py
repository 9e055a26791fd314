"""Compile the C++ source once per machine, and find it again."""

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from runtime_pruning.files import locked

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC")
COMPILE_SECONDS = 300


SOURCE = Path(__file__).with_name("src") / "program.cpp"


@functools.cache
def version() -> str:
    """Return what tells these calls from earlier ones: the start of a hash of their source."""
    return hashlib.sha256(source_bytes(SOURCE)).hexdigest()[:8]


def source_bytes(source: Path) -> bytes:
    """Return a source with the headers that lie beside it."""
    files = [source, *sorted(source.parent.glob("*.h"))]
    return b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)


def compiled_library(source: Path, compiler: str) -> Path:
    """Return the shared library of a source, from the user's cache or made now.

    OpenMP's functions are those that PyTorch has loaded, so that both share their threads.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    told = source_bytes(source) + version + " ".join(FLAGS).encode() + _processor().encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runtime-pruning"
    found = cache / f"native-{hashlib.sha256(told).hexdigest()[:16]}.so"
    if found.is_file():
        return found
    with locked(found.with_suffix(".lock")):  # one process compiles, others wait for it
        if found.is_file():
            return found
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            compiled, linked = Path(folder, "native.o"), Path(folder, "native.so")
            for command in (
                [compiler, *FLAGS, "-c", str(source), "-o", str(compiled)],
                [compiler, "-shared", str(compiled), "-o", str(linked)],
            ):
                subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
            linked.replace(found)
    return found


def _processor() -> str:
    """Return what ``-march=native`` goes by."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "".join(line for line in lines[:40] if line.startswith(("model name", "flags")))

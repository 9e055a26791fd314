"""The C++ steps beyond no memory and does nothing undefined, on any input that it is made for.

``driver.cpp`` calls the whole surface of the library at odd sizes and compares with plain loops.
"""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime_pruning.errors import NativeError
from runtime_pruning.executor.native import build

FLAGS = ("-std=c++17", "-fopenmp", "-O0", "-g1", "-fsanitize=address,undefined")
QUIET = {  # leaks need a process that may trace itself; memory runs short on purpose
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "OMP_NUM_THREADS": "2",
}
SOURCE = Path(__file__).with_name("driver.cpp")


def targets() -> list[build.Target]:
    """Return the smallest instruction set that is compiled for, and the best that this CPU has."""
    try:
        build.compiler()
        return list({build.target(): None, build.TARGETS[-1]: None})
    except NativeError:
        return []


def can_sanitize(folder: Path) -> bool:
    """Whether the compiler finds its sanitizers' libraries."""
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}\n")
    command = [*build.compiler(), *FLAGS, str(empty), "-o", str(folder / "empty")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def driven(folder: Path, target: build.Target) -> str:
    """Compile and run the driver for a kind of CPU; return what it says."""
    driver = folder / target.name.replace(" ", "-")
    flags = (*FLAGS, "-fno-sanitize-recover=all", "-I", str(build.SOURCE.parent), *target.flags)
    for command in ([*build.compiler(), *flags, str(SOURCE), "-o", str(driver)], [str(driver)]):
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **QUIET}
        )
        if ran.returncode:
            return ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(not targets(), reason="needs a compiler and an x86 CPU")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    if not can_sanitize(tmp_path):
        pytest.skip("needs the compiler's sanitizers")
    with ThreadPoolExecutor() as pool:  # the compilers are other processes
        told = pool.map(lambda target: driven(tmp_path, target), targets())
    assert list(told) == ["driven\n"] * len(targets())

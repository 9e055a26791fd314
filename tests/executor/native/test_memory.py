"""What glibc keeps."""

import ctypes
import os
import subprocess
import sys

import pytest

KEEPING = """
import resource, torch
from runtime_pruning.executor.native import memory
memory.keep_memory()
torch.set_num_threads(1)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


least = 10**6
for turn in range(10):
    before = faults()
    held = [torch.zeros(512, 1024) for _ in range(16)]  # 2 MiB each
    del held
    least = min(least, faults() - before)
print(least)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    def faults(**settings: str) -> int:
        known = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
        ran = subprocess.run(
            [sys.executable, "-c", KEEPING],
            check=True,
            capture_output=True,
            text=True,
            env=known | settings,
        )
        return int(ran.stdout)

    assert faults() <= 2 < faults(MALLOC_MMAP_THRESHOLD_="131072")

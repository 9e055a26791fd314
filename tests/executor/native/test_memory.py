"""Memory: huge pages, and what glibc keeps."""

import ctypes
import gc
import os
import subprocess
import sys

import pytest
import torch

from runtime_pruning.executor.native import memory


def test_large_weights_lie_on_huge_pages_and_stay() -> None:
    values = torch.arange(2 * memory.HUGE, dtype=torch.float32).view(4, -1)
    placed = memory.on_huge_pages(values)
    assert placed.data_ptr() != values.data_ptr()
    assert placed.data_ptr() % memory.HUGE == 0
    gc.collect()  # the memory belongs to the tensor alone
    assert torch.equal(placed, values)
    small = torch.zeros(16)
    assert memory.on_huge_pages(small) is small


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

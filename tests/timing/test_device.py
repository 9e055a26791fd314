"""A device's key is fit for names of metrics, and differs where times would."""

import re
from dataclasses import replace

import pytest
import torch

from runtime_pruning.timing.device import Device, this_device

XEON = Device(
    kind="cpu",
    model="Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz",
    revision="6-85-4",
    flags=("avx2", "avx512f"),
    threads=2,
    dtype="bfloat16",
    backend="onednn",
    torch_version="2.9.0+cpu",
)


def test_the_key_reads_well_and_is_fit_for_names() -> None:
    assert re.fullmatch(r"intel-xeon-gold-6130-2-10ghz-t2-bfloat16-onednn-[0-9a-f]{6}", XEON.key)
    gpu = replace(XEON, model="NVIDIA H200", kind="cuda")
    assert gpu.key.startswith("h200-t2-")
    assert re.fullmatch(r"[a-z0-9-]+", this_device().key)
    assert this_device() == this_device()


@pytest.mark.parametrize(
    "other",
    [
        {"threads": 1},
        {"dtype": "float32"},
        {"backend": "native"},
        {"torch_version": "2.9.1+cpu"},
        {"revision": "6-85-7"},
        {"flags": ("avx2",)},
    ],
)
def test_whatever_changes_times_changes_the_key(other: dict[str, object]) -> None:
    assert replace(XEON, **other).key != XEON.key


def test_dtype_and_threads_are_those_in_use() -> None:
    threads = torch.get_num_threads()
    told = this_device(torch.bfloat16)
    assert (told.dtype, told.threads, told.kind) == ("bfloat16", threads, "cpu")
    assert told.fingerprint["torch_version"] == torch.__version__
    assert int(told.fingerprint["cores"]) >= 1

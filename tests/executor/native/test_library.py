"""Whether the compiled library is used is said, and can be chosen."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.cost.timed_stages import TimedDeployedNetwork
from runtime_pruning.errors import NativeError
from runtime_pruning.executor import deploy
from runtime_pruning.executor.native import build, library
from runtime_pruning.network import trace


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    library.forget()
    yield
    library.forget()


def test_what_runs_has_a_name() -> None:
    if library.functions(torch.float32) is None:
        assert library.description().startswith("PyTorch (")
    else:
        assert library.description() == f"native {build.target().name}"


def test_off_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SETTING, "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library.functions(torch.float32) is None
        assert library.decide() is None
    assert library.description() == "PyTorch (RUNTIME_PRUNING_NATIVE=off)"


def test_without_a_compiler_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(build.SETTING, "auto")
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    with pytest.warns(UserWarning, match=r"CXX=.* was not found(.|\n)*slower") as told:
        library.functions(torch.float32)
    assert len(told) == 1
    assert library.functions(torch.float32) is None  # a second warning would be an error
    assert library.functions(torch.bfloat16) is None
    assert library.decide() is None
    assert library.description() == "PyTorch (no compiler)"


def test_what_is_required_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(build.SETTING, "require")
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    for _ in range(2):
        with pytest.raises(NativeError, match="was not found"):
            library.functions(torch.float32)


def test_a_latency_is_named_after_whose_kernels_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    if library.functions(torch.float32) is None:
        pytest.skip("needs a compiler and an x86 CPU")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    network = trace(backbone, (1, 8, 8)).eval()
    own = TimedDeployedNetwork(deploy(network)).device
    assert build.target().name in own.backend
    assert build.version() in own.backend
    monkeypatch.setenv(build.SETTING, "off")
    library.forget()
    other = TimedDeployedNetwork(deploy(network)).device
    assert "native" not in other.backend
    assert other.key != own.key

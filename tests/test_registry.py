"""Plugins by name: duplicates refused, the nearest spelling suggested, entry points found."""

import subprocess
import sys
from pathlib import Path

import pytest

from runtime_pruning import backbones
from runtime_pruning.errors import ContractError, UnknownNameError, UserError
from runtime_pruning.registry import Registry

GROUP = "runtime_pruning.test_fruits"
UV = Path(sys.executable).with_name("uv")
EXAMPLE = Path(__file__).parent / "example_backbone"


@pytest.fixture
def fruits() -> Registry[str]:
    registry: Registry[str] = Registry("fruit", GROUP)
    registry.register("apple")("an apple")
    registry.register("banana")("a banana")
    return registry


def distribution(folder: Path, name: str, *entries: str) -> None:
    """Write the metadata of an installed distribution and a module of two plugins."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *entries]))
    (folder / f"{name}.py").write_text("CHERRY = 'a cherry'\nAPPLE = 'another apple'\n")


def test_a_plugin_is_found_by_its_name(fruits: Registry[str]) -> None:
    assert fruits.get("banana") == "a banana"
    assert sorted(fruits) == ["apple", "banana"]


def test_a_decorator_returns_what_it_registers(fruits: Registry[str]) -> None:
    assert fruits.register("plum")("a plum") == "a plum"


def test_a_taken_name_is_refused_and_keeps_its_plugin(fruits: Registry[str]) -> None:
    with pytest.raises(ContractError, match="A fruit named 'apple' is registered already"):
        fruits.register("apple")("a worm")
    assert fruits.get("apple") == "an apple"


def test_the_nearest_spelling_is_suggested(fruits: Registry[str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        fruits.get("bananna")
    assert str(caught.value) == (
        "No fruit is called 'bananna'. Did you mean 'banana'? Known: ['apple', 'banana']."
    )
    assert isinstance(caught.value, UserError)


def test_nothing_is_suggested_where_nothing_is_near(fruits: Registry[str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        fruits.get("xyz")
    assert str(caught.value) == "No fruit is called 'xyz'. Known: ['apple', 'banana']."


def test_an_entry_point_is_listed_suggested_and_imported_on_use(
    fruits: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "orchard_a", "cherry = orchard_a:CHERRY")
    monkeypatch.syspath_prepend(tmp_path)
    assert sorted(fruits) == ["apple", "banana", "cherry"]
    with pytest.raises(UnknownNameError, match=r"Did you mean 'cherry'\?"):
        fruits.get("chery")
    assert "orchard_a" not in sys.modules
    assert fruits.get("cherry") == "a cherry"


def test_an_entry_point_may_not_take_a_built_in_name(
    fruits: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "orchard_b", "apple = orchard_b:APPLE")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ContractError, match=r"'apple' is claimed more than once.*orchard_b:APPLE"):
        fruits.get("apple")


def test_two_distributions_may_not_share_a_name(
    fruits: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("orchard_c", "orchard_d"):
        distribution(tmp_path / name, name, f"cherry = {name}:CHERRY")
        monkeypatch.syspath_prepend(tmp_path / name)
    with pytest.raises(ContractError, match=r"orchard_c:CHERRY.*orchard_d|orchard_d.*orchard_c"):
        fruits.get("cherry")


def test_a_misspelt_backbone_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"backbone is called 'resnet20'.*'resnet\d\d-cifar'"
    ):
        backbones.create("resnet20", num_classes=10, image_shape=(3, 32, 32))


USE_EXAMPLE = """
import torch
from runtime_pruning import backbones
assert "example-plain" in backbones.names()
backbone = backbones.create("example-plain", num_classes=7, image_shape=(3, 32, 32))
print(tuple(backbone(torch.zeros(2, 3, 32, 32)).shape), backbone[0].out_channels)
"""


@pytest.mark.skipif(not UV.exists(), reason="needs uv beside the interpreter")
def test_a_third_partys_backbone_is_installed_and_created_by_name(tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = ["pip", "install", "--no-deps", "--no-build-isolation", "--offline"]
    where = ["--python", sys.executable, "--target", target, "--cache-dir", tmp_path / "cache"]
    subprocess.run([UV, *install, *where, EXAMPLE], check=True, capture_output=True)
    assert "example-plain" not in backbones.names(), "it is visible only where it is installed"
    root = Path(__file__).parents[1]
    paths = [str(target), str(root / "platform"), str(root / "envs")]
    used = subprocess.run(
        [sys.executable, "-c", USE_EXAMPLE],
        env={"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (used.returncode, used.stdout) == (0, "(2, 7) 16\n"), used.stderr

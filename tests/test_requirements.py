"""What is pinned where: what runs, what develops, and CUDA's libraries as constraints only."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILES = ("requirements.txt", "requirements-cuda.txt", "requirements-dev.txt")
# What the Makefile installs with, without a network's help for the build of our own package.
INSTALLERS = ("uv", "editables")


def pins(name: str) -> dict[str, str]:
    """Return the versions that a requirements file pins, by canonical name."""
    lines = (ROOT / name).read_text().splitlines()
    split = [line.split("==") for line in lines if not line.startswith(("#", "-c "))]
    return {canonicalize_name(package): version for package, version in split}


def needed_by(roots: Iterable[str]) -> set[str]:
    """Return canonical names of all distributions that ``roots`` need here, themselves included."""
    seen: set[tuple[str, str]] = set()
    left = [Requirement(root) for root in roots]
    while left:
        needed = left.pop()
        for extra in {"", *needed.extras}:
            key = (canonicalize_name(needed.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for line in distribution(needed.name).requires or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    left.append(further)
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_name_and_a_version(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    pinned = [line for line in pinned if line != "-c requirements-cuda.txt"]
    assert pinned
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", line)] == []


def test_what_runs_is_pinned_and_nothing_that_only_develops(
    project: dict[str, dict[str, list[str]]],
) -> None:
    roots = [*project["project"]["dependencies"], *project["build-system"]["requires"], *INSTALLERS]
    runs = needed_by(roots)
    assert runs == {*pins("requirements.txt"), *pins("requirements-cuda.txt")} & runs
    assert set(pins("requirements.txt")) - runs == set()
    assert set(pins("requirements-dev.txt")) & runs == set()


def test_a_pin_lies_in_one_file_and_fits_its_bounds(
    project: dict[str, dict[str, list[str]]],
) -> None:
    every = [name for file in FILES for name in pins(file)]
    assert len(every) == len(set(every))
    for line in project["project"]["dependencies"]:
        wanted = Requirement(line)
        version = pins("requirements.txt")[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), line


def test_no_line_asks_for_cudas_libraries_outright() -> None:
    """As constraints they are installed where PyTorch asks for them: never on CPU, macOS or ARM."""
    assert "-c requirements-cuda.txt" in (ROOT / "requirements.txt").read_text().splitlines()
    asked = {*pins("requirements.txt"), *pins("requirements-dev.txt")}
    assert [name for name in asked if name.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_python_from_3_11_to_3_13_is_stated(project: dict[str, dict[str, list[str]]]) -> None:
    stated = str(project["project"]["requires-python"])
    admitted = [f"3.{minor}" for minor in range(9, 16) if allows(stated, f"3.{minor}.5")]
    assert admitted == ["3.11", "3.12", "3.13"]


def allows(stated: str, version: str) -> bool:
    """Whether a Python version fits what ``requires-python`` states."""
    return Requirement(f"python{stated}").specifier.contains(version)

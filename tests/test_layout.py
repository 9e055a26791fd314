"""The house rules that a machine can check: source roots, arrows, names, committed text."""

import ast
import platform
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("platform", "envs", "sweeps")

# Lower may not import higher; neighbours on one line may import each other.
LAYERS = (
    {"errors"},
    {"config", "files", "glossary", "plugins", "registry"},
    {"timing"},
    {"backbones", "datasets"},
    {"network"},
    {"executor"},
    {"cost"},
    {"agents", "frontier", "tracking"},
    {"methods"},
    {"cli", "deploy", "sweeping"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# The folders of `executor/`, from bottom to top; a folder's files may import each other downwards.
EXECUTOR = (
    {"native"},
    {"commands"},
    {"ir"},
    {"kernels"},
    {"program"},
    {"mode_table", "batching"},
    {"deployed", "autotuning", "plan_sampling"},
)
# Contract suites see whatever they test; the command that prints them and the sweep that tries
# them before it trains import them, and nothing else.
UNRANKED = {"testing"}


def imports_of(path: Path) -> list[str]:
    """Return the absolute module names that a file imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def arrows(package_root: Path) -> list[tuple[str, str, Path]]:
    """Return (part, imported part, file) for each import inside ``runtime_pruning``."""
    found = []
    for path in sorted(package_root.rglob("*.py")):
        part = path.relative_to(package_root).parts[0].removesuffix(".py")
        for name in imports_of(path):
            steps = name.split(".")
            if steps[0] == "runtime_pruning" and len(steps) > 1:
                found.append((part, steps[1], path))
    return found


def runs_back(part: str, imported: str) -> bool:
    """Whether an arrow points from a lower layer to a higher one."""
    if imported in UNRANKED:
        return part not in UNRANKED | {"cli", "sweeping"}
    return part not in UNRANKED and LEVEL[imported] > LEVEL[part]


def test_dependencies_point_one_way() -> None:
    package = ROOT / "platform" / "runtime_pruning"
    unknown = {p.name.removesuffix(".py") for p in package.iterdir() if p.suffix in ("", ".py")}
    assert unknown - set(LEVEL) - UNRANKED - {"__init__", "__pycache__"} == set()
    back = [f"{p.relative_to(ROOT)}: {a} -> {b}" for a, b, p in arrows(package) if runs_back(a, b)]
    assert back == []


def test_the_arrow_test_sees_an_arrow_that_runs_back(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "bad.py").write_text("from runtime_pruning.methods import base\n")
    assert [runs_back(a, b) for a, b, _ in arrows(tmp_path)] == [True]


def test_environments_know_nothing_of_pruning_or_ray() -> None:
    for path in (ROOT / "envs").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & {"runtime_pruning", "ray", "mlflow"}, path


@pytest.mark.parametrize("folder", [*SOURCE_ROOTS, "tests", "cluster"])
def test_a_source_root_is_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_platform_is_the_standard_librarys() -> None:
    assert platform.__file__ is not None
    assert not Path(platform.__file__).is_relative_to(ROOT / "platform")


@pytest.mark.parametrize("folder", SOURCE_ROOTS)
def test_no_module_shadows_another(folder: str) -> None:
    ours = {
        path.stem for path in (ROOT / folder).iterdir() if path.suffix == ".py" or path.is_dir()
    }
    installed = set(packages_distributions()) - {"runtime_pruning", "pruning_envs"}
    assert ours & (set(sys.stdlib_module_names) | installed) == set()


def tracked_text() -> list[Path]:
    """Return the text files that git tracks, this one left out."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    paths = [ROOT / name for name in listed if not name.endswith((".png", ".parquet"))]
    return [path for path in paths if path != Path(__file__) and path.exists()]


@pytest.mark.parametrize(
    "pattern",
    [r"/(?:work|root|home/\w+)/", r"https?://[^ )\"]*(?:pypi|pythonhosted|debian\.org|npmjs)"],
)
def test_no_machine_path_or_registry_address_is_committed(pattern: str) -> None:
    hits = [str(path) for path in tracked_text() if re.search(pattern, path.read_text())]
    assert hits == []


def test_one_heavy_lock_file_is_absent() -> None:
    assert not (ROOT / "uv.lock").exists()

"""The house rules that a machine can check: source roots, arrows, names, committed text."""

import ast
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ("platform", "envs", "sweeps")

# Lower may not import higher; neighbours on one line may import each other.
LAYERS = (
    {"errors"},
    {"config", "curves", "files", "glossary", "places", "plugins", "registry", "resources"},
    {"timing"},
    {"backbones", "datasets"},
    {"network", "frontier"},
    {"executor"},
    {"agents", "cascades", "cost", "tracking"},
    {"methods", "deploy", "testing"},
    {"sweeping"},
    {"cli"},
)
# The inside of `executor/`, from bottom to top.
EXECUTOR = (
    {"native"},
    {"commands"},
    {"ir"},
    {"kernels"},
    {"program"},
    {"mode_table", "plan_macs", "plan_sampling", "batching"},
    {"engine"},
    {"batch_parts", "deployed_subsets"},
    {"deployed"},
    {"agreement", "autotuning"},
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 80  # lines


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


def arrows(folder: Path, package: str) -> list[tuple[str, str, Path]]:
    """Return (part, imported part, file) for each import inside a package's folder."""
    found, depth = [], package.count(".") + 1
    for path in sorted(folder.rglob("*.py")):
        part = path.relative_to(folder).parts[0].removesuffix(".py")
        for name in imports_of(path):
            if name.startswith(f"{package}."):
                found.append((part, name.split(".")[depth], path))
    return found


def runs_back(part: str, imported: str, layers: Sequence[set[str]]) -> bool:
    """Whether an arrow points from a lower layer to a higher one."""
    level = {name: level for level, names in enumerate(layers) for name in names}
    return part != "__init__" and level[imported] > level[part]


@pytest.mark.parametrize(
    ("package", "layers"), [("runtime_pruning", LAYERS), ("runtime_pruning.executor", EXECUTOR)]
)
def test_dependencies_point_one_way(package: str, layers: Sequence[set[str]]) -> None:
    folder = ROOT.joinpath("platform", *package.split("."))
    parts = {
        path.name.removesuffix(".py") for path in folder.iterdir() if path.suffix in ("", ".py")
    }
    assert parts - set().union(*layers) - {"__init__", "__pycache__"} == set()
    back = [
        f"{path.relative_to(ROOT)}: {part} -> {imported}"
        for part, imported, path in arrows(folder, package)
        if runs_back(part, imported, layers)
    ]
    assert back == []


def test_the_arrow_test_sees_an_arrow_that_runs_back(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "bad.py").write_text("from runtime_pruning.methods import base\n")
    found = [runs_back(a, b, LAYERS) for a, b, _ in arrows(tmp_path, "runtime_pruning")]
    assert found == [True]


def modules() -> dict[str, Path]:
    """Return all modules of the product by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT / root).with_suffix("").parts): path
        for root in ("platform", "envs")
        for path in (ROOT / root).rglob("*.py")
        if path.name != "__init__.py"
    }


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    after = {
        name: {
            module
            for imported in imports_of(path)
            for module in (imported, imported.rpartition(".")[0])
            if module in known
        }
        for name, path in known.items()
    }
    assert len(list(TopologicalSorter(after).static_order())) == len(
        known
    )  # or CycleError names it


def test_files_and_functions_are_short() -> None:
    long = []
    for path in modules().values():
        text = path.read_text()
        if (lines := len(text.splitlines())) > LONGEST_FILE:
            long.append(f"{path.name}: {lines} lines")
        long += [
            f"{path.name}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno is not None
            and node.end_lineno - node.lineno >= LONGEST_FUNCTION
        ]
    assert long == []


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
    paths = [
        ROOT / name for name in listed if not name.endswith((".png", ".parquet", ".safetensors"))
    ]
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

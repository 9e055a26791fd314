"""Which code a point came from, with a repository and without."""

import shutil
import subprocess
import sys
from pathlib import Path

from runtime_pruning.sweeping import provenance
from runtime_pruning.sweeping.provenance import code_version, sources_hash

ROOT = Path(__file__).parents[2]


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t.example"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_in_a_repository_it_is_the_commit() -> None:
    assert f"+{git('rev-parse', '--short=12', 'HEAD', cwd=ROOT)}" in f"+{code_version()}"


def test_an_edit_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry.py").write_text("1")
    git("init", cwd=tmp_path)
    git("add", ".", cwd=tmp_path)
    git("commit", "-m", "one", cwd=tmp_path)
    head = git("rev-parse", "--short=12", "HEAD", cwd=tmp_path)
    assert provenance._commit(tmp_path) == head
    (tmp_path / "registry.py").write_text("2")
    assert provenance._commit(tmp_path) == f"{head}.changed"


def test_a_repository_that_ignores_the_package_says_nothing_of_it(tmp_path: Path) -> None:
    git("init", cwd=tmp_path)
    (tmp_path / "registry.py").write_text("1")
    assert provenance._commit(tmp_path) is None


def test_without_a_repository_it_is_a_hash_of_the_sources(tmp_path: Path) -> None:
    """As a submitted job has it: a copy of the working directory without .git."""
    for root, package in (("platform", "runtime_pruning"), ("envs", "pruning_envs")):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / root / package, tmp_path / package, ignore=ignored)
    program = (
        "import runtime_pruning, sys\n"
        "from runtime_pruning.sweeping.provenance import code_version\n"
        "assert runtime_pruning.__file__.startswith(sys.argv[1]), runtime_pruning.__file__\n"
        "print(code_version())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith(f"sources.{sources_hash()}"), done.stderr

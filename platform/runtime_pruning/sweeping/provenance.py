"""Which code runs: the version, and the commit or a hash of the sources."""

import hashlib
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pruning_envs
import runtime_pruning

NAME = "runtime-pruning"


def code_version() -> str:
    """Return ``0.1.0+1ffc802db748``, with ``.changed`` behind it if files differ from the commit.

    Where there is no repository, as in a submitted job, a hash of all sources stands in for the
    commit: ``0.1.0+sources.5d1c0a9e77b2``. The version is left out where nothing is installed.
    """
    code = _commit(Path(runtime_pruning.__file__).parent) or f"sources.{sources_hash()}"
    try:
        return f"{version(NAME)}+{code}"
    except PackageNotFoundError:
        return code


def sources_hash() -> str:
    """Return 12 hexadecimal digits made of every source file of both packages."""
    digest = hashlib.sha256()
    for package in (runtime_pruning, pruning_envs):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                digest.update(f"{package.__name__}/{path.relative_to(root)}".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _commit(folder: Path) -> str | None:
    """Return the commit that a folder is checked out at; None where git knows nothing of it."""
    try:
        # An installed package may lie in some other repository, which ignores it.
        _git(folder, "ls-files", "--error-unmatch", "registry.py")
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}.changed" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()

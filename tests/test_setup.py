"""The Makefile's set-up with an interpreter and an installer that only note what they are asked.

What is tried is which steps run, in what order, and which run again after an interruption.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Makes what `python -m venv` makes; each program notes its arguments, and the one that the file
# `interrupt` names sends Ctrl-C's signal to make, its parent's parent's, once.
PROGRAM = """#!/bin/bash
echo "$(basename "$0") $*" >> calls
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p .venv/bin
    cp "$0" .venv/bin/python
    for name in uv ruff mypy; do cp "$0" .venv/bin/$name; done
fi
if [ -s interrupt ] && [[ "$(basename "$0") $*" == $(cat interrupt)* ]]; then
    rm interrupt
    kill -INT 0
    sleep 5
fi
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile and what it reads, and the program that stands for Python."""
    for name in ("Makefile", "pyproject.toml", *(p.name for p in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "fake-python").write_text(PROGRAM)
    (tmp_path / "fake-python").chmod(0o755)
    return tmp_path


def make(clone: Path, target: str) -> tuple[int, list[str]]:
    """Run make; return its exit code, and what it called."""
    (clone / "calls").write_text("")
    done = subprocess.run(
        ["make", target, "PYTHON=./fake-python"],
        cwd=clone,
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,  # so that the signal reaches make and its children only
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    return done.returncode, (clone / "calls").read_text().splitlines()


def test_the_main_job_needs_nothing_that_only_develops(clone: Path) -> None:
    code, calls = make(clone, "frontier")
    assert code == 0
    assert calls[0] == "fake-python -m venv --clear .venv"
    assert [call for call in calls if "requirements-dev.txt" in call] == []
    assert calls[-1] == "python sweeps/frontier.py --preset cluttered-digits"
    code, calls = make(clone, "frontier")
    assert (code, calls) == (0, ["python sweeps/frontier.py --preset cluttered-digits"])


def test_the_tests_need_both(clone: Path) -> None:
    code, calls = make(clone, "check")
    assert code == 0
    (together,) = [call for call in calls if "requirements-dev.txt" in call]
    assert "-r requirements.txt -r requirements-dev.txt" in together
    assert make(clone, "check")[1] == ["ruff format --check .", "ruff check .", "mypy "]


@pytest.mark.parametrize(
    "at", ["fake-python -m venv", "python -m pip install", "uv pip install", "uv * --no-deps"]
)
def test_an_interrupted_setup_is_begun_anew_by_the_same_command(clone: Path, at: str) -> None:
    (clone / "interrupt").write_text(at)
    code, calls = make(clone, "frontier")
    assert code != 0
    assert calls[-1] != "python sweeps/frontier.py --preset cluttered-digits"
    code, calls = make(clone, "frontier")
    assert code == 0
    assert calls[0] == "fake-python -m venv --clear .venv"
    assert calls[-1] == "python sweeps/frontier.py --preset cluttered-digits"


def test_interrupted_while_what_develops_is_installed(clone: Path) -> None:
    assert make(clone, "frontier")[0] == 0
    (clone / "interrupt").write_text("uv * -r requirements-dev.txt")
    assert make(clone, "check")[0] != 0
    code, calls = make(clone, "frontier")
    assert code == 0
    assert calls[0] == "fake-python -m venv --clear .venv"


def test_new_pins_are_installed_into_what_there_is(clone: Path) -> None:
    assert make(clone, "check")[0] == 0
    os.utime(clone / "requirements.txt", (2e9, 2e9))
    code, calls = make(clone, "frontier")
    assert code == 0
    assert [call for call in calls if "venv --clear" in call] == []
    assert [call for call in calls if "-r requirements.txt" in call] != []

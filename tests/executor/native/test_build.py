"""The library is compiled once per source, compiler and CPU; what fails is told, and kept."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime_pruning.errors import ConfigError, NativeError
from runtime_pruning.executor.native import build

REAL = shutil.which("g++") or shutil.which("clang++")
KIND = build.Target("any", ("-O0",), frozenset())
GOOD, WRONG = 'extern "C" int one() { return 1; }\n', "int one = ;\n"

pytestmark = pytest.mark.skipif(REAL is None, reason="needs a compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of libraries."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runtime-pruning"


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a source."""
    (tmp_path / "src").mkdir()

    def write(text: str) -> Path:
        file = tmp_path / "src" / "one.cpp"
        file.write_text(text)
        return file

    return write


class Compiler:
    """The real one behind a script that notes what it is asked, and may be slow."""

    def __init__(self, folder: Path, *, seconds: int = 0, version: str = "1") -> None:
        self.runs = folder / "runs"
        self.file = folder / "compiler"
        self.file.write_text(
            f'#!/bin/sh\necho "$*" >> {self.runs}\nsleep {seconds}\n'
            f'test "$1" = --version && echo {version}\nexec {REAL} "$@"\n'
        )
        self.file.chmod(0o755)

    @property
    def compiled(self) -> int:
        """How often it compiled."""
        return sum(" -c " in line for line in self.runs.read_text().splitlines())


def one(library: Path) -> int:
    """Load a copy, since a library of a known file is not loaded again."""
    copy = library.with_name(f"{len(list(library.parent.iterdir()))}.so")
    shutil.copyfile(library, copy)
    value: int = ctypes.CDLL(str(copy)).one()
    return value


def test_one_process_compiles_for_all(
    tmp_path: Path, cache: Path, source: Callable[[str], Path]
) -> None:
    compiler, file = Compiler(tmp_path, seconds=1), source(GOOD)
    told = (
        "from pathlib import Path; from runtime_pruning.executor.native import build; "
        "kind = build.Target('any', ('-O0',), frozenset()); "
        f"print(build.compiled_library(Path({str(file)!r}), [{str(compiler.file)!r}], kind))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", told], stdout=subprocess.PIPE) for _ in range(2)
    ]
    (first, _), (second, _) = (process.communicate(timeout=300) for process in processes)
    assert first == second != b""
    assert compiler.compiled == 1
    assert Path(first.decode().strip()).parent == cache


def test_a_failure_is_told_and_not_tried_again(
    tmp_path: Path, cache: Path, source: Callable[[str], Path]
) -> None:
    compiler = Compiler(tmp_path)
    for _ in range(2):
        with pytest.raises(NativeError, match=r"returned 1:(.|\n)*expected") as caught:
            build.compiled_library(source(WRONG), [str(compiler.file)], KIND)
        assert caught.value.short == "does not compile"
    assert "is tried again a day later" in str(caught.value)
    assert compiler.compiled == 1
    (failed,) = cache.glob("*.failed")
    os.utime(failed, (0, time.time() - build.FAILED_SECONDS - 1))
    with pytest.raises(NativeError, match="returned 1"):
        build.compiled_library(source(WRONG), [str(compiler.file)], KIND)
    assert compiler.compiled == 2
    with pytest.raises(NativeError, match="returned 1"):  # another compiler may be able to
        build.compiled_library(source(WRONG), [str(Compiler(tmp_path, version="2").file)], KIND)
    assert compiler.compiled == 3
    assert one(build.compiled_library(source(GOOD), [str(compiler.file)], KIND)) == 1


@pytest.mark.usefixtures("cache")
def test_a_header_is_part_of_the_source(tmp_path: Path, source: Callable[[str], Path]) -> None:
    file = source('#include "value.h"\nextern "C" int one() { return VALUE; }\n')
    assert REAL is not None
    for value in (1, 2):
        (file.parent / "value.h").write_text(f"#define VALUE {value}\n")
        assert one(build.compiled_library(file, [REAL], KIND)) == value


def test_a_library_that_does_not_load_is_a_failure(
    cache: Path, source: Callable[[str], Path]
) -> None:
    assert REAL is not None
    file = source('extern "C" int nowhere();\nextern "C" int one() { return nowhere(); }\n')
    for _ in range(2):
        with pytest.raises(NativeError, match="nowhere") as caught:
            build.compiled_library(file, [REAL], KIND)
        assert caught.value.short == "does not load"
    assert not list(cache.glob("*.so"))


@pytest.mark.usefixtures("cache")
def test_a_damaged_library_is_made_anew(tmp_path: Path, source: Callable[[str], Path]) -> None:
    compiler = Compiler(tmp_path)
    library = build.compiled_library(source(GOOD), [str(compiler.file)], KIND)
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    assert one(build.compiled_library(source(GOOD), [str(compiler.file)], KIND)) == 1
    library.with_suffix(".sha256").unlink()
    assert one(build.compiled_library(source(GOOD), [str(compiler.file)], KIND)) == 1
    assert compiler.compiled == 3


def test_a_cache_that_cannot_be_written_to_is_left_for_a_temporary_one(
    tmp_path: Path, source: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REAL is not None
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    library = build.compiled_library(source(GOOD), [REAL], KIND)
    own = tmp_path / f"runtime-pruning-{os.getuid()}"
    assert library.parent == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)  # anybody could put a library there
    with pytest.raises(NativeError, match="can be written to") as caught:
        build.compiled_library(source(GOOD), [REAL], KIND)
    assert caught.value.short == "no cache"


def test_a_compiler_may_be_several_words(
    tmp_path: Path,
    cache: Path,
    source: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapper = tmp_path / "ccache"
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path / "wrapped"}\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"{wrapper} {REAL}")
    assert build.compiler() == [str(wrapper), REAL]
    assert build.compiled_library(source(GOOD), build.compiler(), KIND).parent == cache
    assert (tmp_path / "wrapped").exists()


@pytest.mark.parametrize("told", ["no-such-compiler -O2", "'g++"])
def test_no_compiler_is_told(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", told)
    with pytest.raises(NativeError, match="CXX=") as caught:
        build.compiler()
    assert caught.value.short == "no compiler"


@pytest.mark.usefixtures("cache")
def test_a_compiler_that_does_not_run_is_told(
    tmp_path: Path, source: Callable[[str], Path]
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(NativeError, match="does not run"):
        build.compiled_library(source(GOOD), [str(broken)], KIND)


V3 = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (V3, "x86-64-v3"),
        (V3 | {"avx512f"}, "x86-64-v3"),
        (V4, "x86-64-v4"),
        (V4 | {"avx512_bf16", "amx_tile"}, "x86-64-v4 bf16"),
    ],
)
def test_the_best_target_of_a_cpu(
    flags: set[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_cpu_flags", lambda: frozenset(flags))
    assert build.target().name == name


@pytest.mark.parametrize("flags", [set(), V3 - {"avx2"}, {"asimd", "sve"}])
def test_a_cpu_that_no_target_is_for(flags: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_cpu_flags", lambda: frozenset(flags))
    with pytest.raises(NativeError, match="AVX2"):
        build.target()


def test_the_setting_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(build.SETTING, raising=False)
    assert build.setting() == "auto"
    monkeypatch.setenv(build.SETTING, "never")
    with pytest.raises(ConfigError, match=r"'auto', 'require', 'off'.*'never'"):
        build.setting()

"""Compile the C++ source once per machine, and find it again.

A library is kept by a key of its source, the compiler and the kind of CPU that it is for, in the
user's cache, or in a temporary folder where that cannot be written. Where a source does not
compile, the reason is kept in its place for a day: no other process tries again.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime_pruning.errors import ConfigError, NativeError
from runtime_pruning.files import locked, write_text

SETTING = "RUNTIME_PRUNING_NATIVE"
SETTINGS = ("auto", "require", "off")
FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-fPIC")
COMPILE_SECONDS = 900  # of which 25 are the compiler's own; the rest is for a machine under load
FAILED_SECONDS = 24 * 60 * 60  # for which a failure is kept: it may have been the machine's
SOURCE = Path(__file__).with_name("src") / "program.cpp"
_LINES = 5  # of what a compiler says last


@dataclass(frozen=True)
class Target:
    """A kind of CPU that the source is compiled for.

    Attributes:
        name: for reports.
        flags: of the compiler; GCC knows them from version 11 on.
        needs: flags of such a CPU, as Linux names them.
    """

    name: str
    flags: tuple[str, ...]
    needs: frozenset[str]


_V3 = frozenset(["abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"])
_V4 = _V3 | frozenset(["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"])
TARGETS = (  # the best first
    Target("x86-64-v4 bf16", ("-march=x86-64-v4", "-mavx512bf16"), _V4 | {"avx512_bf16"}),
    Target("x86-64-v4", ("-march=x86-64-v4",), _V4),
    Target("x86-64-v3", ("-march=x86-64-v3",), _V3),
)


def setting() -> str:
    """Return whether compiled calls are used where they can be had, must be had, or are not used.

    Raises:
        ConfigError: the environment names none of these.
    """
    told = os.environ.get(SETTING, "auto")
    if told not in SETTINGS:
        raise ConfigError(f"`{SETTING}` must be one of {SETTINGS}, but got {told!r}.")
    return told


@functools.cache
def version() -> str:
    """Return what tells these calls from earlier ones: the start of a hash of their source."""
    return hashlib.sha256(source_bytes(SOURCE) + " ".join(FLAGS).encode()).hexdigest()[:8]


def source_bytes(source: Path) -> bytes:
    """Return a source with the headers that lie beside it."""
    files = [source, *sorted(source.parent.glob("*.h"))]
    return b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)


def target() -> Target:
    """Return the best kind that this machine's CPU is of.

    Raises:
        NativeError: it is of none.
    """
    flags = _cpu_flags()
    for own in TARGETS:
        if own.needs <= flags:
            return own
    raise NativeError("no AVX2", "An x86-64 CPU with AVX2 and Linux are needed.")


def compiler() -> list[str]:
    """Return the command that compiles: ``$CXX``, which may hold several words, or what is found.

    Raises:
        NativeError: there is none.
    """
    told = os.environ.get("CXX")
    try:
        words = shlex.split(told or "")
    except ValueError as error:
        raise NativeError("no compiler", f"CXX={told!r} is no command: {error}.") from error
    for command in [words] if words else [["g++"], ["clang++"]]:
        if shutil.which(command[0]) is not None:
            return command
    looked = f"CXX={told!r}" if words else "g++ or clang++"
    raise NativeError("no compiler", f"{looked} was not found.")


def compiled_library(source: Path, command: Sequence[str], kind: Target) -> Path:
    """Return the shared library of a source, kept from an earlier time or made now.

    OpenMP's functions are those that PyTorch has loaded, so that both share their threads.

    Args:
        source: its headers lie beside it.
        command: of the compiler.
        kind: of CPU.

    Raises:
        NativeError: it cannot be compiled, linked or loaded, now or in an earlier process.
    """
    name = f"native-{_key(source, command, kind)}"
    folders = list(_folders())
    for folder in folders:  # one that cannot be written may hold it
        found = _kept(folder / name)
        if found is not None:
            return found
    place = _writable(folders) / name
    with locked(place.with_suffix(".lock")):  # one process compiles, others wait for it
        found = _kept(place)
        if found is not None:
            return found
        failed = place.with_suffix(".failed")
        try:
            made = _made(source, command, kind, place)
        except NativeError as error:
            write_text(failed, f"{error.short}\n{error}\n")
            raise
    return made


def _kept(place: Path) -> Path | None:
    """Return a library that is kept whole; None where there is none.

    Raises:
        NativeError: it could not be made before.
    """
    library, digest, failed = (place.with_suffix(end) for end in (".so", ".sha256", ".failed"))
    if failed.is_file() and time.time() - failed.stat().st_mtime < FAILED_SECONDS:
        short, _, told = failed.read_text(encoding="utf-8").partition("\n")
        again = f"It is tried again a day later, or when {failed} is removed."
        raise NativeError(short, f"{told.strip()} {again}")
    if not library.is_file() or not digest.is_file():
        return None
    return library if digest.read_text(encoding="utf-8") == _digest(library) else None


def _made(source: Path, command: Sequence[str], kind: Target, place: Path) -> Path:
    """Compile, link, and try whether it loads; only then is it kept."""
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        compiled, linked = Path(folder, "native.o"), Path(folder, "native.so")
        _run([*command, *FLAGS, *kind.flags, "-c", str(source), "-o", str(compiled)])
        _run([*command, "-shared", str(compiled), "-o", str(linked)])
        try:
            ctypes.CDLL(str(linked))
        except OSError as error:
            raise NativeError("does not load", f"{error}.") from error
        digest = _digest(linked)
        linked.replace(place.with_suffix(".so"))
    write_text(place.with_suffix(".sha256"), digest)
    return place.with_suffix(".so")


def _run(command: Sequence[str]) -> None:
    """Run a compiler.

    Raises:
        NativeError: it fails; its last lines are in the message.
    """
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()[-_LINES:]
        told = "\n".join([f"`{shlex.join(command)}` returned {error.returncode}:", *lines])
        raise NativeError("does not compile", told) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeError("does not compile", f"{error}.") from error


def _key(source: Path, command: Sequence[str], kind: Target) -> str:
    """Return what tells one library from another."""
    try:
        asked = [*command, "--version"]
        told = subprocess.run(asked, capture_output=True, check=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeError(
            "no compiler", f"`{shlex.join(command)}` does not run: {error}."
        ) from error
    words = (*command, *FLAGS, *kind.flags)
    parts = source_bytes(source) + told.stdout + "\0".join(words).encode()
    return hashlib.sha256(parts).hexdigest()[:16]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _folders() -> Iterator[Path]:
    """Yield where libraries may be kept: the user's cache, else a folder of this user alone."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    yield Path(cache) / "runtime-pruning"
    own = Path(tempfile.gettempdir()) / f"runtime-pruning-{os.getuid()}"
    status = os.lstat(own) if own.exists() or own.is_symlink() else None
    if status is None or (status.st_uid == os.getuid() and status.st_mode & 0o170022 == 0o040000):
        yield own  # nobody else could have put a library there


def _writable(folders: Sequence[Path]) -> Path:
    """Return the first folder that can be written to."""
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise NativeError("no cache", f"None of {', '.join(map(str, folders))} can be written to.")


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Return the flags of this machine's first CPU, as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    told = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(told.partition(":")[2].split())

"""Modules that a user names: imported, found by registries, shipped where they lie in a folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from runtime_pruning import plugins
from runtime_pruning.errors import ConfigError
from runtime_pruning.registry import Registry

# Each module registers in a registry that the test hands over as an attribute of `plugins`.
SOURCE = """
from runtime_pruning import plugins
plugins.registry_for_tests.register("{name}")("{name} of {module}")
"""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    made: Registry[str] = Registry("thing", "runtime_pruning.things_for_tests")
    monkeypatch.setattr(plugins, "registry_for_tests", made, raising=False)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package, a namespace package and a single file."""
    monkeypatch.setenv(plugins.PLUGINS_ENV, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    for module, name in (("mine.one", "one"), ("loose.two", "two"), ("alone_three", "three")):
        path = tmp_path / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(SOURCE.format(name=name, module=module))
    (tmp_path / "mine" / "__init__.py").touch()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_what_is_named_is_registered_and_handed_on(folder: Path, registry: Registry[str]) -> None:
    plugins.use_plugins(["mine.one", "alone_three"])
    assert os.environ[plugins.PLUGINS_ENV] == "mine.one,alone_three"
    assert registry.get("one") == "one of mine.one"
    assert sorted(registry) == ["one", "three"]
    plugins.use_plugins(["loose.two", "mine.one"])
    assert plugins.named_plugins() == ["mine.one", "alone_three", "loose.two"]
    assert sorted(registry) == ["one", "three", "two"]


def test_a_registry_imports_what_its_process_inherited(
    folder: Path, registry: Registry[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.PLUGINS_ENV, " loose.two ,")
    assert registry.get("two") == "two of loose.two"


def test_folders_are_shipped_and_what_is_installed_is_not(
    folder: Path, registry: Registry[str]
) -> None:
    plugins.use_plugins(["mine.one", "mine", "loose.two", "alone_three", "numpy.linalg", "json"])
    assert numpy.__file__ is not None
    shipped = [path.resolve() for path in plugins.plugin_folders()]
    assert shipped == [folder / "mine", folder / "loose", folder / "alone_three.py"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.to_be", "'nowhere.to_be' cannot be imported .*No module named 'nowhere'"),
        ("mine.broken", "'mine.broken' cannot be imported .ZeroDivisionError: division by zero"),
        ("mine/one.py", "named like a module, `package.module`, but got 'mine/one.py'"),
        ("", "named like a module, `package.module`, but got ''"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(folder: Path, name: str, message: str) -> None:
    (folder / "mine" / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=message) as caught:
        plugins.use_plugins([name])
    assert "\n" not in str(caught.value)
    assert os.environ[plugins.PLUGINS_ENV] == ""

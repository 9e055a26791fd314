"""Plugin modules that a sweep names, imported on the driver and in every process that works for it.

A preset (``plugins: [my_backbones.small]``) or ``--plugin`` names modules, each of which registers
what it brings when it is imported. Their names travel as an environment variable, and a registry
that is asked for a name imports them first. Entry points serve what is installed, and need neither.
"""

import importlib
import os
import re
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from runtime_pruning.errors import ConfigError

PLUGINS_ENV = "RUNTIME_PRUNING_PLUGINS"


def use_plugins(names: Sequence[str]) -> None:
    """Import modules here, and have the processes that inherit our variables import them too.

    Args:
        names: of modules in the working directory, on the path, or installed; they are added to
            those that ``RUNTIME_PRUNING_PLUGINS`` names, separated by commas.

    Raises:
        ConfigError: a name that is no module's, or a module that cannot be imported.
    """
    every = list(dict.fromkeys([*named_plugins(), *names]))
    for name in every:
        _import(name)
    if every:
        os.environ[PLUGINS_ENV] = ",".join(every)


def import_plugins() -> None:
    """Import the modules that ``RUNTIME_PRUNING_PLUGINS`` names.

    Raises:
        ConfigError: one cannot be imported.
    """
    for name in named_plugins():
        _import(name)


def named_plugins() -> list[str]:
    """Return the modules that ``RUNTIME_PRUNING_PLUGINS`` names."""
    return [name.strip() for name in os.environ.get(PLUGINS_ENV, "").split(",") if name.strip()]


def plugin_folders() -> list[Path]:
    """Return the packages and files that other machines need for the plugins, once each.

    They are those of the top-level packages that plugins are in, but for what is installed: that is
    to be installed there too.
    """
    tops = dict.fromkeys(name.partition(".")[0] for name in named_plugins())
    found: list[Path] = []
    for top in tops:
        module = importlib.import_module(top)
        places = getattr(module, "__path__", None) or [module.__file__]
        found += [Path(place) for place in places if place and not _is_installed(Path(place))]
    return found


def _import(name: str) -> None:
    """Import one module; whatever its import raises becomes one sentence."""
    if name in sys.modules:
        return
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"A plugin is named like a module, `package.module`, but got {name!r}.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(name)
    except Exception as error:  # a module may raise anything
        reason = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").rstrip(".")
        raise ConfigError(
            f"The plugin {name!r} cannot be imported ({reason}); it must be a module in the "
            "working directory, on PYTHONPATH, or installed."
        ) from error


def _is_installed(place: Path) -> bool:
    """Whether a module belongs to Python or to an installed distribution."""
    roots = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(place.is_relative_to(root) for root in roots) or bool(
        {"site-packages", "dist-packages"} & set(place.parts)
    )

"""Named plugins: a registry per kind, filled by decorators and by entry points.

Built-in plugins register when their package is imported. A third party names its plugin under an
entry-point group (``runtime_pruning.backbones`` and so on); it is imported on first use only. Or
its user names the module (``plugins`` in a preset), see `runtime_pruning.plugins`.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from runtime_pruning.errors import ContractError, UnknownNameError, did_you_mean
from runtime_pruning.plugins import import_plugins

T = TypeVar("T")


class Registry(Generic[T]):
    """Plugins of one kind by name.

    Args:
        kind: what the plugins are, in the singular, for messages: ``"backbone"``.
        group: the entry-point group that third parties register under.
    """

    def __init__(self, kind: str, group: str) -> None:
        self._kind = kind
        self._group = group
        self._plugins: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a plugin under ``name``.

        Raises:
            ContractError: the name is taken.
        """

        def decorate(plugin: T) -> T:
            if name in self._plugins:
                raise ContractError(f"A {self._kind} named {name!r} is registered already.")
            self._plugins[name] = plugin
            return plugin

        return decorate

    def get(self, name: str) -> T:
        """Return the plugin called ``name``, importing it if an entry point names it.

        Raises:
            UnknownNameError: no such plugin; the message suggests the nearest name.
            ContractError: two distributions, or one and a built-in, claim the name.
            ConfigError: a plugin module that cannot be imported.
        """
        import_plugins()
        found = [entry for entry in entry_points(group=self._group) if entry.name == name]
        if len(found) + (name in self._plugins) > 1:
            owners = [entry.value for entry in found]
            raise ContractError(f"The {self._kind} {name!r} is claimed more than once: {owners}.")
        if found:
            result: T = found[0].load()
            return result
        if name in self._plugins:
            return self._plugins[name]
        known = sorted(self)
        raise UnknownNameError(
            f"No {self._kind} is called {name!r}.{did_you_mean(name, known)} Known: {known}."
        )

    def __iter__(self) -> Iterator[str]:
        """Yield all known names, built-in and third-party."""
        import_plugins()
        yield from {*self._plugins, *(entry.name for entry in entry_points(group=self._group))}

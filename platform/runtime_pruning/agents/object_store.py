"""Big things that many processes read: stored once per node, never copied into configurations."""

from typing import Any, Generic, TypeVar

import ray

T = TypeVar("T")


class ObjectStoreValue(Generic[T]):
    """A value in Ray's object store.

    RLlib copies its configuration often and deeply; this is copied as the reference that it is.
    It is worth nothing outside the cluster that stores the value: checkpoints must not hold it.

    Args:
        value: the value, or a reference to it in the object store.
    """

    def __init__(self, value: "T | ray.ObjectRef") -> None:
        self._ref = value if isinstance(value, ray.ObjectRef) else ray.put(value)

    def get(self) -> T:
        """Return the value; arrays in it are views of the store, read-only."""
        value: T = ray.get(self._ref)
        return value

    def __copy__(self) -> "ObjectStoreValue[T]":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ObjectStoreValue[T]":
        return self

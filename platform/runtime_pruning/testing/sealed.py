"""Datasets whose held-out splits nobody can read: what a method gets while it is tried."""

from typing import Any

from runtime_pruning.datasets import HeldOutSplit, ImageDataset, TestSplit, ValidationSplit
from runtime_pruning.errors import ContractError


class HeldOutReadError(ContractError):
    """A method has read images that it is measured on."""


def sealed(data: ImageDataset) -> ImageDataset:
    """Return the dataset with its validation and test split sealed; it pickles as that."""
    own = object.__new__(ImageDataset)  # its checks would read
    splits = {
        "info": data.info,
        "training": data.training,
        "policy": data.policy,
        "validation": _SealedValidation(data.validation),
        "test": _SealedTest(data.test),
    }
    for name, value in splits.items():
        object.__setattr__(own, name, value)
    return own


class _Sealed(HeldOutSplit):
    """A held-out split of which nobody may look at an image or a label."""

    def __init__(self, split: HeldOutSplit) -> None:
        self.info = split.info
        self.ids_N = split.ids_N
        self._hash = split.content_hash()

    def __len__(self) -> int:
        return len(self.ids_N)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), dict(vars(self)))

    def __getattribute__(self, name: str) -> Any:
        if name in ("table", "images_NCHW", "labels_N", "take", "head"):
            kind = type(self).__name__.removeprefix("_Sealed").lower()
            raise HeldOutReadError(
                f"A method must not read held-out images, but it read `{name}` of the {kind} split."
            )
        return super().__getattribute__(name)

    def content_hash(self) -> str:
        """Return the hash of the split that was sealed."""
        return self._hash


class _SealedValidation(_Sealed, ValidationSplit):
    """The validation split, sealed."""


class _SealedTest(_Sealed, TestSplit):
    """The test split, sealed."""


def _restored(kind: type[_Sealed], state: dict[str, Any]) -> _Sealed:
    """Return a sealed split out of a pickle."""
    split = object.__new__(kind)
    split.__dict__.update(state)
    return split

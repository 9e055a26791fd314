"""By which names the parts of a dataset go, as folders or as files, in whatever case.

``Train``, ``TRAINING``, ``train_set`` and ``train2017`` are the training part. A name that may mean
two parts (``trainval``, ``eval``), or that begins like one (``test_hard``) where there are others,
is refused: as a class it would make a frontier of telling training from test images.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from runtime_pruning.errors import DataError

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst"),
}

# Parts of some kind; of which, people do not agree.
_UNCLEAR = ("trainval", "trainvalid", "traintest", "eval", "evaluation", "holdout", "heldout")
# What people add to such a name.
_ADDED = ("set", "data", "dataset", "images", "image", "imgs", "img", "split", "part", "folder")


def part_of(name: str) -> str | None:
    """Return the part that a folder's name means, None where it means none or is not clear."""
    return _part_of_words(_words(name))


def part_folders(names: Iterable[str], where: str) -> dict[str, str]:
    """Return the folder of each part among all folders of a dataset, in the order of `PARTS`.

    Empty where none is a part: they are classes then.

    Args:
        names: of the folders.
        where: they are, for messages.

    Raises:
        DataError: two folders of one part, or one of which the part is not clear.
    """
    names = sorted(names)
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in names:
        if part := part_of(name):
            found[part].append(name)
    parts = {part: one_name(part, folders, where) for part, folders in found.items() if folders}
    unclear = [name for name in names if part_of(name) is None and _is_unclear(name, parts)]
    if unclear and (parts or len(unclear) > 1 or _is_nothing_else(unclear[0])):
        raise DataError(
            f"{where} holds {unclear}, which read like parts of a dataset: call the parts `train`, "
            "`validation` and `test`. Classes of such names must lie below `train`."
        )
    return parts


def file_part(name: str) -> str | None:
    """Return the part that the first word of a file's name means.

    Raises:
        DataError: it is a word for a part, but for which is not clear.
    """
    word = _words(name)[:1]
    if word and word[0] in _UNCLEAR:
        raise DataError(f"{name!r} must begin with `train`, `validation` or `test`.")
    return _part_of_words(word)


def one_name(part: str, names: Sequence[str], where: str) -> str:
    """Return the only name of a part.

    Raises:
        DataError: there are more.
    """
    if len(names) > 1:
        raise DataError(f"Only one of {list(names)} may be in {where}: each is its {part} part.")
    return names[0]


def _part_of_words(words: Sequence[str]) -> str | None:
    """Return the part that all words mean."""
    for part, synonyms in PARTS.items():
        if words and all(word in synonyms for word in words):
            return part
    return None


def _is_unclear(name: str, parts: Iterable[str]) -> bool:
    """Whether some word is one for a part that is not among ``parts``."""
    missing = [word for part, words in PARTS.items() if part not in parts for word in words]
    return any(word in missing or word in _UNCLEAR for word in _words(name))


def _is_nothing_else(name: str) -> bool:
    """Whether each word of a name is one for a part."""
    known = [*_UNCLEAR, *(word for words in PARTS.values() for word in words)]
    return all(word in known for word in _words(name))


def _words(name: str) -> list[str]:
    """Return the words of a name, without digits and without what people add."""
    known = [*_UNCLEAR, *(word for words in PARTS.values() for word in words)]
    words = []
    for word in re.split(r"[\W\d_]+", name.casefold()):
        for added in _ADDED:
            if word.removesuffix(added) in known:
                word = word.removesuffix(added)
        if word and word not in _ADDED:
            words.append(word)
    return words

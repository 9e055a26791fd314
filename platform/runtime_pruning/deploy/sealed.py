"""Facts in a JSON file that no bit of can change unseen: it holds a checksum over all of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime_pruning.errors import DataError
from runtime_pruning.files import write_text

Facts = dict[str, Any]


def write_sealed(path: Path, facts: Facts) -> None:
    """Write facts, plain JSON, with a checksum over them."""
    write_text(path, _text({**facts, "sha256": _digest(facts)}))


def read_sealed(path: Path, *, schema: int, what: str) -> Facts:
    """Return what `write_sealed` wrote, the checksum verified and left out.

    Args:
        path: of the file.
        schema: the one version that is understood here, under the key ``schema``.
        what: holds the file, for messages: ``"A bundle"``.

    Raises:
        DataError: no such file, one of another schema, or one of which any bit has changed.
    """
    if not path.is_file():
        raise DataError(f"{what} holds a {path.name}, but {str(path.parent)!r} has none.")
    damaged = f"The bundle's {path.name} in {str(path.parent)!r} is damaged: "
    try:
        text = path.read_text(encoding="utf-8")
        facts = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{damaged}{error}") from error
    if not isinstance(facts, dict):
        raise DataError(f"{damaged}it must be an object, but got {type(facts).__name__}.")
    if (found := facts.get("schema")) != schema:
        raise DataError(f"{what}'s `schema == {schema}` must hold, but got {found!r}.")
    stated = facts.pop("sha256", None)
    # The text itself is compared too: 1e-3 and 1E-3 are the same number, and not the same file.
    if stated != _digest(facts) or text != _text({**facts, "sha256": stated}):
        raise DataError(f"{damaged}its checksum differs.")
    return facts


def check_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Raise unless each file is the one that checksums speak of.

    Raises:
        DataError: names the file.
    """
    for name, expected in checksums.items():
        if sha256_of(folder / name) != expected:
            raise DataError(f"The bundle's file {name!r} is damaged: its checksum differs.")


def sha256_of(path: Path) -> str:
    """Return a file's checksum.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"The bundle's file {path.name!r} cannot be read: {error}") from error


def _text(facts: Facts) -> str:
    return json.dumps(facts, indent=2) + "\n"


def _digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

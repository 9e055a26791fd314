"""What a sweep says of bad input."""

import pytest

from runtime_pruning.cli import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that bad input is answered with."""
    code = main(["sweep", "--preset", "digits", *arguments])
    printed = capsys.readouterr().err.strip()
    assert code == 2
    assert printed.startswith("error: ")
    assert "\n" not in printed
    return printed

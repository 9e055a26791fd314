"""What is said of a point's decisions comes back as it was written, or is refused."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from runtime_pruning.errors import DataError
from runtime_pruning.frontier import write_record
from runtime_pruning.frontier.explanation import explain, read_explanation
from runtime_pruning.frontier.proof import control_path
from runtime_pruning.glossary import CONTROLS_FILE, DYNAMICS_FILE


def test_numbers_and_proof_come_back(synthetic: ModuleType, tmp_path: Path) -> None:
    point, record = synthetic.make_point(0.5)
    for name in ("fixed", "shuffled", "random"):
        write_record(synthetic.make_record(0.5, skill=0.8), control_path(tmp_path, name, 0))
    bounds = [list(range(1, 81))] * synthetic.SITES
    (tmp_path / CONTROLS_FILE).write_text(json.dumps({"bounds": bounds}))
    dynamics = explain(point, record, tmp_path, None, tuple("abcdefghij"))
    (tmp_path / DYNAMICS_FILE).write_text(json.dumps(dynamics.to_dict()))
    found = read_explanation(tmp_path)
    assert found.proof == dynamics.proof
    assert found.numbers["advantage_fixed"] == dynamics.proof.fixed.value
    assert dynamics.upper_bound is None  # no oracle was asked


def test_controls_that_nobody_measured_are_named(synthetic: ModuleType, tmp_path: Path) -> None:
    point, record = synthetic.make_point(0.5)
    with pytest.raises(DataError, match=r"controls\.json, but it is absent"):
        explain(point, record, tmp_path, None, tuple("abcdefghij"))


@pytest.mark.parametrize("text", [None, "{", "{}", '{"numbers": {}, "proof": {"fixed": 1}}'])
def test_what_is_no_explanation_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / DYNAMICS_FILE).write_text(text)
    with pytest.raises(DataError, match="No readable explanation at"):
        read_explanation(tmp_path)

"""The benchmark of execution runs, and its table says what it compared."""

import importlib.util
import sys
from pathlib import Path

import pytest

WAYS = ("auto", "decided", "static", "pruned", "masked", "released")


def test_the_table_has_a_row_per_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).with_name("execution.py")
    spec = importlib.util.spec_from_file_location("execution_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    options = "--backbone digits-cnn --side 8 --batch 2 --dtype fp32 --fraction 0.5 --anyway --way"
    monkeypatch.setattr(sys, "argv", [str(path), *options.split(), *WAYS])
    module.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[3].split(",")[0] for row in rows] == list(WAYS)
    for row in rows:
        macs = float(row[5])
        assert macs == 1 if row[3] in ("masked", "released") else 1 <= macs < 4
        assert float(row[7].lstrip("~")) == pytest.approx(
            float(row[6].lstrip("~").split()[0]) / macs, abs=0.02
        )

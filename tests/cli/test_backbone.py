"""Commands about one backbone, this device, and what can be named."""

import json
from pathlib import Path

import pytest

from runtime_pruning.cli import main
from runtime_pruning.cost.latency import LatencyTable


def test_check_backbone_prints_a_scorecard(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-backbone", "digits-cnn", "--groups", "2", "--image-shape", "1,8,8"]) == 0
    told = capsys.readouterr().out
    assert "12 of 12 clauses passed" in told
    assert "dense MACs per image: 189,248" in told  # 188,928 convolved, 320 in the linear layer
    assert "0 8 16" in told


def test_check_method_prints_a_scorecard(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-method", "fixed-width", "--set", "calibration_batches=0"]) == 0
    told = capsys.readouterr().out
    assert "passed   its records agree with what it claims" in told
    assert "2 points reported" in told
    assert main(["check-method", "fixed-width", "--set", "calibration=0"]) == 2
    assert "has no setting 'calibration'" in capsys.readouterr().err


def test_calibrate_writes_a_table_and_holds_it_against_the_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", "digits-cnn", "--dataset-shape", "1,8,8", "--groups", "2"]
    more = ["--batch", "1", "4", "--threads", "1", "--passes", "1", "--out", str(tmp_path)]
    assert main([*command, *more]) == 0
    told = capsys.readouterr().out
    (path,) = tmp_path.glob("*/*.parquet")
    assert "-t1-float32-" in path.parent.name
    assert str(path) in told
    assert "batch 4: 20 unseen plans" in told
    assert "Kendall's tau" in told
    table = LatencyTable.read(path)
    assert table.batches == (1, 4)
    assert (table.backbone, table.num_sites) == ("digits-cnn", 3)
    assert table.device_key == path.parent.name
    assert {row.threads for row in table.rows} == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20"], "Did you mean 'resnet"),
        (["digits-cnn", "--threads", "0"], "`threads >= 1` must hold, but got 0."),
        (["digits-cnn", "--batch", "0"], "must each be >= 1, but got (batches=[0]"),
    ],
)
def test_calibrate_refuses_bad_input(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_plugins_prints_for_people_and_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    assert "datasets   cifar10, " in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert list(names) == ["backbones", "datasets", "costs", "algorithms", "methods"]
    assert "resnet20-cifar" in names["backbones"]


@pytest.mark.parametrize("shape", ["8,8", "3,32,x", ""])
def test_a_shape_that_is_none_is_refused(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-backbone", "digits-cnn", "--image-shape", shape]) == 2
    told = capsys.readouterr().err
    assert f"must be CHANNELS,HEIGHT,WIDTH such as 3,32,32, but got {shape!r}" in told
    assert told.count("\n") == 1

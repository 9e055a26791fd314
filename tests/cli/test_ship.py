"""The command line: what it prints and the codes it ends with."""

from pathlib import Path

import pytest

from runtime_pruning import backbones
from runtime_pruning.cli import main
from runtime_pruning.deploy import write_bundle
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shape = (1, 8, 8)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=shape)
    network = trace(backbone, shape, groups=2, align=4).eval()
    write_bundle(tmp_path, network, FixedPolicy([1, 1, 1]), backbone="digits-cnn", align=4)
    return tmp_path


def test_measure_times_a_bundle_against_dense(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["measure", str(bundle), "--dataset", "digits", "--threads", "1", "--images", "8"]
    assert main([*command, "--batch", "1", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["batch 1", "batch 8"]
    for line in lines:
        macs, verdict = line.split(": ")[1].split(" times fewer MACs, ")
        assert 0.5 < float(macs) < 8
        full = line.endswith("; no gain here: all images run at full width, undecided")
        assert full == ("mode full: 1.00 times" in line)
        assert verdict.split(";")[0] in ("faster", "slower", "tie", "contaminated")
        assert verdict.startswith("contaminated") or "realisation" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "digits", "--batch", "9"], "`1 <= batch <= images` must hold, but got 9"),
        (["--dataset", "digits", "--images", "0"], "`images >= 1` must hold, but got 0."),
        (["--dataset", "digit"], "Did you mean 'digits'?"),
    ],
)
def test_measure_refuses_bad_input(
    bundle: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(bundle), "--images", "8", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_measure_wants_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(tmp_path), "--dataset", "digits"]) == 2
    assert "A bundle holds a manifest.json" in capsys.readouterr().err

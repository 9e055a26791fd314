"""Bad input is refused before Ray starts: one sentence, exit code 2."""

from pathlib import Path

import pytest
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.cli import main
from runtime_pruning.errors import ConfigError
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.run import open_folder

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "sweeps" / "presets"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fail the test if Ray is started; keep results away from the repository."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started.")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setenv("RUNTIME_PRUNING_RESULTS", str(tmp_path))
    for name in ("RUNTIME_PRUNING_DATA", "RUNTIME_PRUNING_WEIGHTS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line that bad input is answered with."""
    code = main(["sweep", "--preset", "digits", *arguments])
    printed = capsys.readouterr().err.strip()
    assert code == 2
    assert printed.startswith("error: ")
    assert "\n" not in printed
    return printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "digit-cnn"], "No backbone is called 'digit-cnn'. Did you mean 'digits-"),
        (["--dataset", "digit"], "No dataset is called 'digit'. Did you mean 'digits'?"),
        (["--set", "method=rnpp"], "No method is called 'rnpp'. Did you mean 'rnp'?"),
        (["--set", "controls=[fixd-width]"], "Did you mean 'fixed-width'?"),
        (["--set", "settings.cost=mac"], "No cost is called 'mac'. Did you mean 'macs'?"),
        (["--set", "search.groups=[2, 64]"], "it has fewer channels (32) than groups (64)"),
        (["--set", "search.penalty=[-1, 1]"], "`0 <= penalty < inf` must hold, but got -1"),
        (["--set", "search.penalti=[1]"], "`search.penalti` is no setting of 'rnp'. Did you mean"),
        (["--set", "settings.agent.hiden=3"], "no setting 'hiden'. Did you mean 'hidden'?"),
        (["--set", "trails=3"], "no setting 'trails'. Did you mean 'trials'?"),
        (["--preset", "digitz"], "No preset is called 'digitz'. Did you mean 'digits'?"),
        (["--plugin", "nowhere.to_be"], "The plugin 'nowhere.to_be' cannot be imported"),
        (["--set", "plugins=[a/b.py]"], "named like a module, `package.module`, but got 'a/b.py'"),
        (["--dataset", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--set", "prepare.pretrained=true"], "has no published weights"),
    ],
)
def test_each_fault_is_named_with_a_way_out(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refusal(capsys, *arguments)


def test_a_dead_head_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "nothing answers at '127.0.0.1:9'" in refusal(capsys)


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such option: --trails" in refusal(capsys, "--trails", "3")


@pytest.mark.parametrize("sweep_id", ["a/b", "it's", "..", "-x"])
def test_a_sweep_id_must_name_a_folder_and_a_tag(
    capsys: pytest.CaptureFixture[str], sweep_id: str
) -> None:
    assert "A sweep id holds letters" in refusal(capsys, f"--sweep-id={sweep_id}")


def test_a_sweep_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    first = load_preset("digits", PRESETS)
    assert open_folder(tmp_path, "one", first) == open_folder(tmp_path, "one", first)
    with pytest.raises(ConfigError, match=r"was started with trials=\d+ .* but got 99"):
        open_folder(tmp_path, "one", load_preset("digits", PRESETS, ["trials=99"]))


class Untraceable(nn.Module):
    """Branches on its input, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        if features.sum() > 0:
            features = self.second(features)
        return self.last(features.mean((2, 3)))


@backbones.register("untraceable-for-tests")
def untraceable(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Untraceable()


def test_a_backbone_that_cannot_be_traced_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--backbone", "untraceable-for-tests")
    assert "trac" in message
    assert "control flow" in message

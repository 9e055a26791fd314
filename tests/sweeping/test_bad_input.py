"""Bad input is refused before Ray starts: one sentence, exit code 2."""

import pytest
from refused import refusal
from torch import Tensor, nn

from runtime_pruning import backbones


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


def test_a_backbone_that_cannot_be_traced_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--backbone", "untraceable-for-tests")
    assert "trac" in message
    assert "control flow" in message

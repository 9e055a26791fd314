"""The loop under all training: stopped and resumed, replayed from its seed, refused in time."""

from pathlib import Path
from typing import Any

import pytest
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.errors import ConfigError, DivergedError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.trainer import EpochReport, TrainConfig, learning_rate
from runtime_pruning.network.training import train

DATA = datasets.load("digits")
SHORT = TrainConfig(epochs=3, batch_size=64, lr=0.1, pad=1, calibration_images=128)


def digits_net() -> PrunableNetwork:
    return trace(backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8)), (1, 8, 8))


def state(network: PrunableNetwork) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_stopped_and_resumed_is_training_never_stopped(tmp_path: Path) -> None:
    straight, stopped = digits_net(), digits_net()
    config = TrainConfig(**{**vars(SHORT), "epochs": 2})
    file = tmp_path / "deep" / "training.pt"

    def pull_the_plug(report: EpochReport) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    images = DATA.training.head(256)
    full = train(straight, images, config, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(
            *(stopped, images, config),
            progress=False,
            checkpoint=file,
            on_epoch=pull_the_plug,
        )
    fresh = digits_net()
    resumed = train(fresh, images, config, progress=False, checkpoint=file)
    assert same(state(straight), state(fresh))
    assert not same(state(stopped), state(fresh))
    assert [e[:3] for e in resumed.epochs] == [e[:3] for e in full.epochs]
    assert [path.name for path in file.parent.iterdir()] == ["training.pt"]
    with pytest.raises(ConfigError, match=r"'training.pt' is of another training: its config"):
        train(fresh, images, SHORT, progress=False, checkpoint=file)


def test_training_replays_from_its_seed_and_leaves_the_global_generator() -> None:
    config = TrainConfig(**{**vars(SHORT), "epochs": 1})
    before = torch.get_rng_state()
    states = []
    for _ in range(2):
        network = digits_net()
        train(network, DATA.training.head(128), config, progress=False)
        states.append(state(network))
    assert same(*states)
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_is_no_number_ends_the_training_by_name() -> None:
    config = TrainConfig(epochs=2, batch_size=64, lr=1e9, any_width=False)
    with pytest.raises(DivergedError, match=r"at step \d+ of epoch 1: lower the learning rate"):
        train(digits_net(), DATA.training, config, progress=False)


def test_channels_last_and_bfloat16_learn() -> None:
    network = digits_net()
    weight = network.backbone.conv2.weight
    config = TrainConfig(epochs=2, batch_size=64, lr=0.1, precision="bfloat16", channels_last=True)
    layouts = []
    report = train(
        *(network, DATA.training.head(256), config),
        progress=False,
        on_epoch=lambda _: layouts.append(weight.is_contiguous(memory_format=torch.channels_last)),
    )
    assert report.epochs[1].loss < report.epochs[0].loss < 3
    assert weight.dtype == torch.float32
    assert layouts == [True, True]
    assert weight.is_contiguous()  # what follows finds the layout that it knows


def test_learning_rates_by_hand() -> None:
    cosine = TrainConfig(lr=2.0, schedule="cosine")
    assert [learning_rate(cosine, done) for done in (0, 0.5, 1)] == pytest.approx([2, 1, 0])
    cycle = TrainConfig(lr=2.0, schedule="one-cycle")
    done = (0, 0.125, 0.25, 0.625, 1)
    assert [learning_rate(cycle, d) for d in done] == pytest.approx([0.08, 1.04, 2, 1, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, r"`lr > 0` must hold, but got 0.0"),
        ({"momentum": 1.0}, r"`0 <= momentum < 1` must hold, but got 1.0"),
        ({"batch_size": 1}, r"`batch_size >= 2` must hold, but got 1"),
        ({"full_weight": 0.0, "smallest": False, "random_plans": 0}, r"`full_weight \+ smallest"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)

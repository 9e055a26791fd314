"""ManiDP: losses and schedule by hand; it learns digits, resumes bit for bit, diverges aloud."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.datasets import to_float
from runtime_pruning.errors import ConfigError, DivergedError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network import trainer as trainer_module
from runtime_pruning.network.manifold import (
    ManifoldConfig,
    ManifoldModel,
    easiness,
    misalignment,
    scheduled_keep,
    threshold_at,
    train_manifold,
)
from runtime_pruning.network.saliency import SubsetPolicy, saliency_policy
from runtime_pruning.network.subset_run import SubsetRun
from runtime_pruning.network.trainer import EpochReport, TrainConfig, TrainReport
from runtime_pruning.network.training import train

DATA = datasets.load("digits")
TRAINING = TrainConfig(epochs=2, batch_size=64, lr=0.05, schedule="cosine", any_width=False, pad=1)
OnEpoch = Callable[[EpochReport, ManifoldModel], None]


def test_the_schedule_is_a_cosine_from_all_to_what_is_kept() -> None:
    assert [scheduled_keep(0.5, epoch, 4) for epoch in (1, 3)] == pytest.approx([0.75, 0.5])
    assert scheduled_keep(0.5, 0, 4) == pytest.approx(0.75 + 0.25 * math.sqrt(0.5))


def test_a_threshold_is_the_mean_that_the_share_rounded_up_reaches() -> None:
    mean_C = torch.tensor([0.25, 4.0, 1.0, 3.0, 2.0])
    assert [threshold_at(mean_C, keep) for keep in (1.0, 0.6, 0.5, 0.01)] == [0.25, 2.0, 2.0, 4.0]


def test_only_images_below_the_bound_are_easy_and_their_weight_is_a_number() -> None:
    losses_B = torch.tensor([0.0, 0.5, 2.0, 3.0], requires_grad=True)
    assert easiness(losses_B, 2.0, 1.0).tolist() == [1.0, 0.75, 0.0, 0.0]
    assert easiness(losses_B, 2.0, 2.0).tolist() == [1.0, 0.5625, 0.0, 0.0]
    assert easiness(losses_B, 0.0, 1.0).tolist() == [0.0] * 4
    assert not easiness(losses_B, 2.0, 1.0).requires_grad


def test_misalignment_compares_cosines_of_images() -> None:
    features_BC = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # at right angles
    saliency_BC = torch.tensor([[3.0, 3.0], [1.0, 1.0]])  # alike
    assert float(misalignment(features_BC, saliency_BC)) == pytest.approx(2 / 4)
    assert float(misalignment(features_BC, features_BC)) == pytest.approx(0.0)


def digits_net() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    return trace(backbone, (1, 8, 8), align=4)


def learned(
    file: Path | None = None, on_epoch: OnEpoch | None = None
) -> tuple[PrunableNetwork, SubsetPolicy, TrainReport]:
    """Return what a short training on a few digits makes."""
    network = digits_net()
    policy = saliency_policy(network)
    report = train_manifold(
        network,
        policy,
        DATA.training.head(256),
        ManifoldConfig(keep=0.5),
        TRAINING,
        first_bound=2.0,
        checkpoint=file,
        on_epoch=on_epoch,
    )
    return network, policy, report


def test_it_learns_digits_and_keeps_about_the_share_that_was_asked_for() -> None:
    network = digits_net()
    dense = TrainConfig(epochs=6, batch_size=64, lr=0.1, any_width=False)
    train(network, DATA.training, dense, progress=False)
    policy = saliency_policy(network)
    kept: list[float] = []
    train_manifold(
        network,
        policy,
        DATA.training,
        ManifoldConfig(keep=0.7, periods_per_epoch=2),
        TrainConfig(**{**vars(TRAINING), "epochs": 8}),
        first_bound=0.3,
        on_epoch=lambda _, model: kept.append(float(model.realised_L.mean())),
    )
    images_BCHW, labels_N = to_float(DATA.validation.images_NCHW), DATA.validation.labels_N
    with torch.no_grad():
        execution = network.execute(images_BCHW, policy)
    assert (execution.logits_BK.argmax(1).numpy() == labels_N).mean() > 0.9
    assert kept[0] > kept[-1]
    assert 0.5 < kept[-1] < 0.9
    assert (execution.channels_BL.float().std(0) > 0).all()  # it is dynamic
    assert execution.executed_macs_B.float().mean() < 0.8 * 189248


@pytest.mark.parametrize("within", [False, True], ids=["after an epoch", "within one"])
def test_stopped_and_resumed_is_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    network, policy, full = learned()
    file = tmp_path / "manidp.pt"
    if within:  # a checkpoint after each step; the one after the sixth stays
        monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
        save = trainer_module.Trainer.save
        seen: list[int] = []

        def stop(self: trainer_module.Trainer) -> None:
            save(self)
            seen.append(1)
            if len(seen) == 6:
                raise KeyboardInterrupt

        monkeypatch.setattr(trainer_module.Trainer, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            learned(file)
        monkeypatch.undo()
    else:

        def pull_the_plug(report: EpochReport, _: ManifoldModel) -> None:
            if report.epoch == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            learned(file, pull_the_plug)
    other, again, resumed = learned(file)
    for one, two in ((network, other), (policy, again)):
        states = one.state_dict(), two.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [e[:3] for e in resumed.epochs] == [e[:3] for e in full.epochs]
    assert (policy.thresholds_L > 0).all()


def test_periods_are_as_even_as_steps_allow() -> None:
    model = ManifoldModel(digits_net(), saliency_policy(digits_net()), ManifoldConfig(), 10, 4)
    ended: list[tuple[int, int]] = []
    model._end_period = lambda period: ended.append((int(model.steps), period))  # type: ignore[method-assign]
    for _ in range(10):
        run = SubsetRun(model.network, torch.zeros(1, 1, 8, 8), model.policy, "masked").finish()
        model._note(run, torch.zeros(1))
    assert ended == [(3, 0), (5, 1), (8, 2), (10, 3)]


def test_the_schedule_ends_early_where_thresholds_are_to_settle() -> None:
    config = ManifoldConfig(keep=0.5, settle=0.5)
    model = ManifoldModel(digits_net(), saliency_policy(digits_net()), config, 8, 8)
    thresholds = []
    for period in range(8):
        model.images.fill_(1)
        model._sums(0).copy_(torch.arange(16.0))  # saliencies of one image
        model._end_period(period)
        thresholds.append(float(model.policy.thresholds_L[0]))
    # Of 4 periods that fall: after the second 0.75 of 16 channels are kept, the least of them 4.
    assert thresholds[1:] == [4.0, thresholds[2], 8.0, 8.0, 8.0, 8.0, 8.0]
    assert 4.0 < thresholds[2] < 8.0


def test_branches_do_not_decay() -> None:
    network, policy = digits_net(), saliency_policy(digits_net())
    model = ManifoldModel(network, policy, ManifoldConfig(), 2, 2)
    decayed, others = trainer_module._decayed(model, 0.1)
    assert {id(p) for p in policy.parameters()} <= {id(p) for p in others["params"]}
    convolutions = {id(p) for p in network.parameters() if p.ndim > 1}
    assert {id(p) for p in decayed["params"]} == convolutions


def test_a_loss_that_is_no_number_names_the_clamp() -> None:
    network = digits_net()
    policy = saliency_policy(network, most=1000.0)
    with torch.no_grad():
        policy.branch(0).expand.weight.fill_(math.inf)
    with pytest.raises(DivergedError, match=r"The loss is nan at step 1: .*`clamp: 1000`"):
        train_manifold(
            *(network, policy, DATA.training.head(128), ManifoldConfig(), TRAINING),
            first_bound=1.0,
        )


def test_a_policy_of_another_network_and_bad_settings_are_refused() -> None:
    network, policy = digits_net(), copy.deepcopy(saliency_policy(digits_net()))
    policy.branches = policy.branches[:1]
    with pytest.raises(ConfigError, match="a branch per site"):
        train_manifold(
            *(network, policy, DATA.training, ManifoldConfig(), TRAINING), first_bound=1.0
        )
    with pytest.raises(ConfigError, match=r"`periods_per_epoch <= .* but got 5 and 4"):
        train_manifold(
            *(digits_net(), saliency_policy(digits_net()), DATA.training.head(256)),
            *(ManifoldConfig(periods_per_epoch=5), TRAINING),
            first_bound=1.0,
        )
    with pytest.raises(ConfigError, match="0 < keep <= 1"):
        ManifoldConfig(keep=0.0)

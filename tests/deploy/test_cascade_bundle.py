"""Cascades' bundles: what is read back does what was written; damage is noticed; it is timed."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime_pruning import backbones
from runtime_pruning.cascades import (
    Chooser,
    Combination,
    QChooser,
    QNetwork,
    RegressionChooser,
    ThresholdChooser,
)
from runtime_pruning.deploy import (
    CascadeBundle,
    deploy_bundle,
    read_bundle,
    time_bundle,
    write_bundle,
    write_cascade_bundle,
)
from runtime_pruning.deploy.deployed import DeployedCascade, check_cascade
from runtime_pruning.errors import ContractError, DataError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy

SHAPE = (1, 8, 8)
SUM = Combination(
    temperatures_M=np.array([1.0, 1.5]),
    weights_SM=np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.7]]),
)


def network(seed: int) -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=seed)
    backbone.linear.weight.data *= 3
    return trace(backbone, SHAPE, groups=2, align=4).eval()


@pytest.fixture(scope="module")
def images_NCHW() -> Tensor:
    return torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))


def median_confidence(images_NCHW: Tensor) -> float:
    """Return a threshold that half of the images pass after the first member."""
    traced = network(0)
    with torch.no_grad():
        found = traced.execute(images_NCHW, FixedPolicy(traced.uniform(1)))
    return float(found.logits_BK.softmax(1).amax(1).median())


def write(folder: Path, chooser: Chooser) -> None:
    """Write a cascade of one group of a network, then all of another."""
    members = [
        partial(write_bundle, network=traced, policy=policy, backbone="digits-cnn", align=4)
        for traced, policy in (
            (network(0), FixedPolicy([1, 1, 1])),
            (network(1), FixedPolicy([2, 2, 2])),
        )
    ]
    write_cascade_bundle(folder, members, SUM, chooser, backbone="digits-cnn")


def learned() -> QChooser:
    torch.manual_seed(5)
    return QChooser(QNetwork(features=16, hidden=(8,), actions=3).eval(), 0.3)


def fitted() -> RegressionChooser:
    rng = np.random.default_rng(0)
    return RegressionChooser(
        penalty=0.1,
        means_SF=rng.normal(size=(4, 15)),
        scales_SF=np.ones((4, 15)),
        coefficients_SMP=rng.normal(size=(4, 2, 31)),
    )


@pytest.mark.parametrize("kind", ["threshold", "regression", "dqn"])
def test_a_cascade_does_what_was_bundled(tmp_path: Path, images_NCHW: Tensor, kind: str) -> None:
    threshold = median_confidence(images_NCHW)
    chooser: Chooser = {
        "threshold": ThresholdChooser((0, 1), (threshold,)),
        "regression": fitted(),
        "dqn": learned(),
    }[kind]
    write(tmp_path, chooser)
    bundle = read_bundle(tmp_path)
    assert isinstance(bundle, CascadeBundle)
    again, features_BF = bundle.chooser, torch.randn(30, 15).numpy()
    sets_B = np.arange(30) % 3
    assert (again.actions(features_BF, sets_B) == chooser.actions(features_BF, sets_B)).all()
    assert again.macs_per_image == chooser.macs_per_image
    np.testing.assert_array_equal(bundle.combination.weights_SM, SUM.weights_SM)
    assert bundle.image_shape == SHAPE


def test_it_answers_as_its_members_do(tmp_path: Path, images_NCHW: Tensor) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (median_confidence(images_NCHW),)))
    bundle = read_bundle(tmp_path)
    found = bundle.execute(images_NCHW)
    assert found.channels_BL.shape == (40, 6)
    assert found.channels_BL.shape[1] == bundle.num_sites
    once_N = found.channels_BL[:, 3] == 0
    assert 15 < int(once_N.sum()) < 25
    traced, other = network(0), network(1)
    with torch.no_grad():
        first = traced.execute(images_NCHW, FixedPolicy([1, 1, 1]))
        second = other.execute(images_NCHW, FixedPolicy([2, 2, 2]))
    assert torch.equal(found.total_macs_B[once_N], first.total_macs_B[once_N])
    both_N = first.total_macs_B + second.total_macs_B
    assert torch.equal(found.total_macs_B[~once_N], both_N[~once_N])
    by_hand = 0.5 * first.logits_BK.log_softmax(1) + 0.7 * (second.logits_BK / 1.5).log_softmax(1)
    torch.testing.assert_close(
        found.logits_BK[~once_N], by_hand.log_softmax(1)[~once_N], rtol=1e-4, atol=1e-4
    )


def test_damage_in_a_member_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (0.5,)))
    weights = tmp_path / "member-1" / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match=r"'network.safetensors' is damaged"):
        read_bundle(tmp_path)


def test_a_member_put_in_another_s_place_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (0.5,)))
    one, other = tmp_path / "member-0", tmp_path / "member-1"
    one.rename(tmp_path / "kept")
    other.rename(one)
    (tmp_path / "kept").rename(other)
    with pytest.raises(DataError, match=r"'member-0/manifest.json' is damaged"):
        read_bundle(tmp_path)


def test_a_cascade_is_no_member(tmp_path: Path) -> None:
    def nested(folder: Path) -> None:
        write(folder, ThresholdChooser((0, 1), (0.5,)))

    made, alone = SUM.of([0]), ThresholdChooser((0,), ())
    with pytest.raises(ContractError, match="must be a network, but one is a cascade"):
        write_cascade_bundle(tmp_path, [nested], made, alone, backbone="digits-cnn")


@pytest.mark.parametrize("batch", [1, 40])
def test_deployed_it_does_the_same(tmp_path: Path, images_NCHW: Tensor, batch: int) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (median_confidence(images_NCHW),)))
    bundle = read_bundle(tmp_path)
    assert isinstance(bundle, CascadeBundle)
    deployed = deploy_bundle(bundle)
    found = [deployed.execute(part) for part in torch.split(images_NCHW, batch)]
    expected = bundle.execute(images_NCHW)
    macs_N = torch.cat([each.total_macs_B for each in found])
    assert torch.equal(macs_N, expected.total_macs_B)
    logits_NK = torch.cat([each.logits_BK for each in found])
    torch.testing.assert_close(logits_NK, expected.logits_BK, rtol=1e-3, atol=1e-3)


def test_what_answers_wrongly_is_not_timed(tmp_path: Path, images_NCHW: Tensor) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (median_confidence(images_NCHW),)))
    bundle = read_bundle(tmp_path)
    assert isinstance(bundle, CascadeBundle)
    deployed = DeployedCascade(bundle)
    with torch.no_grad():
        bundle.members[0].network.backbone.linear.bias[0] += 9.0
    with pytest.raises(ContractError, match="A deployed cascade must"):
        check_cascade(deployed, images_NCHW, torch.float32)


def test_it_is_timed_against_the_backbone_that_it_names(
    tmp_path: Path, images_NCHW: Tensor
) -> None:
    write(tmp_path, ThresholdChooser((0, 1), (median_confidence(images_NCHW),)))
    (timing,) = time_bundle(read_bundle(tmp_path), images_NCHW, [20], rounds=10)
    bundle = read_bundle(tmp_path)
    spent = float(bundle.execute(images_NCHW).total_macs_B.double().mean())
    traced = network(1)
    with torch.no_grad():
        dense = int(traced.execute(images_NCHW[:1], FixedPolicy([2, 2, 2])).total_macs_B[0])
    assert timing.macs_speedup == pytest.approx(dense / spent)
    assert (timing.batch, timing.mode) == (20, "cascade")

"""Bundles: what is read back does what was written, and damage is noticed."""

import json
from pathlib import Path

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.deploy import read_bundle, write_bundle
from runtime_pruning.errors import ContractError, DataError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import CascadePolicy, FixedPolicy, Policy, RandomPolicy

SHAPE = (1, 8, 8)


def network() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=3)
    traced = trace(backbone, SHAPE, groups=4, align=4).condition_batch_norm()
    return traced.regroup(2, align=4).eval()


def decision(traced: PrunableNetwork) -> Policy:
    torch.manual_seed(1)
    config = DecisionConfig(feature_widths=traced.feature_widths, groups=2, encoder=4, hidden=4)
    return DecisionPolicy(DecisionNetwork(config), penalty=0.3)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_bundle_does_what_was_bundled(tmp_path: Path, fixed: bool) -> None:
    traced = network()
    for norm in (traced.backbone.bn3, traced.backbone.bn4):
        norm.narrow_means.normal_()
    policy: Policy = FixedPolicy([1, 2, 1]) if fixed else decision(traced)
    write_bundle(tmp_path, traced, policy, backbone="digits-cnn", align=4)
    bundle = read_bundle(tmp_path)
    images_BCHW = torch.rand(6, *SHAPE)
    with torch.no_grad():
        expected = traced.execute(images_BCHW, policy)
        found = bundle.network.execute(images_BCHW, bundle.policy)
    assert torch.equal(found.logits_BK, expected.logits_BK)
    assert torch.equal(found.groups_BL, expected.groups_BL)
    assert torch.equal(found.total_macs_B, expected.total_macs_B)


def test_a_bundle_keeps_streams_whole_where_they_were(tmp_path: Path) -> None:
    shape = (3, 8, 8)
    backbone = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape)
    traced = trace(backbone, shape, groups=2, align=4, streams=False).eval()
    write_bundle(tmp_path, traced, FixedPolicy([1] * 9), backbone="resnet20-cifar", align=4)
    assert [site.name for site in read_bundle(tmp_path).network.sites] == [
        site.name for site in traced.sites
    ]


def test_a_bundle_that_looks_twice_does_so_again(tmp_path: Path) -> None:
    traced = network().with_second_look()
    images_BCHW = torch.rand(40, *SHAPE)
    with torch.no_grad():
        once = traced.execute(images_BCHW, FixedPolicy(traced.uniform(1)))
    threshold = float(once.logits_BK.softmax(1).amax(1).median())
    policy = CascadePolicy(groups=2, sites=3, threshold=threshold)
    write_bundle(tmp_path, traced, policy, backbone="digits-cnn", align=4)
    bundle = read_bundle(tmp_path)
    with torch.no_grad():
        expected = traced.execute(images_BCHW, policy)
        found = bundle.network.execute(images_BCHW, bundle.policy)
    assert {1, 2} == set(expected.groups_BL[:, -1].tolist()), "all look alike: no test"
    assert torch.equal(found.logits_BK, expected.logits_BK)
    assert torch.equal(found.groups_BL, expected.groups_BL)
    assert torch.equal(found.executed_macs_B, expected.executed_macs_B)


def test_damage_is_noticed(tmp_path: Path) -> None:
    write_bundle(tmp_path, network(), FixedPolicy([1, 1, 1]), backbone="digits-cnn", align=4)
    weights = tmp_path / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"'network\.safetensors' is damaged"):
        read_bundle(tmp_path)


def test_another_schema_or_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds a manifest\.json"):
        read_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(DataError, match="`schema == 1` must hold, but got 99"):
        read_bundle(tmp_path)


def test_a_policy_of_no_registered_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="RandomPolicy has none"):
        write_bundle(
            tmp_path, network(), RandomPolicy(2, 3, seed=0), backbone="digits-cnn", align=4
        )

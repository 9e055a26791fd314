"""Bundles: what is read back does what was written, and damage is noticed."""

import json
import random
from pathlib import Path

import pytest
import torch

from runtime_pruning import backbones
from runtime_pruning.agents.decision_network import DecisionConfig, DecisionNetwork
from runtime_pruning.agents.policy import DecisionPolicy
from runtime_pruning.backbones.layers import Normalise
from runtime_pruning.deploy import read_bundle, write_bundle
from runtime_pruning.errors import ContractError, DataError
from runtime_pruning.executor import deploy
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, Policy, RandomPolicy
from runtime_pruning.network.surgery import prunable_groups, pruned

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


def test_a_bundle_has_the_sites_that_the_network_was_traced_with(tmp_path: Path) -> None:
    """Of 16 channels no 20 groups are made: two of the three convolutions are no sites."""
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
    traced = trace(backbone, SHAPE, groups=20, align=1).regroup(2, align=4).eval()
    assert [site.channels for site in traced.sites] == [32]
    write_bundle(tmp_path, traced, FixedPolicy([1]), backbone="digits-cnn", align=4)
    found = read_bundle(tmp_path).network
    assert [site.bounds for site in found.sites] == [site.bounds for site in traced.sites]


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
    with pytest.raises(DataError, match="`schema == 4` must hold, but got 99"):
        read_bundle(tmp_path)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("name", ["manifest.json", "network.safetensors", "policy.safetensors"])
def test_no_bit_changes_unseen(tmp_path: Path, name: str) -> None:
    traced = network()
    write_bundle(tmp_path, traced, decision(traced), backbone="digits-cnn", align=4)
    path = tmp_path / name
    content = path.read_bytes()
    whole, rng = 8 * len(content), random.Random(5)
    for bit in rng.sample(range(whole), 300):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(DataError, match=r"is damaged|schema == 4"):
            read_bundle(tmp_path)
    path.write_bytes(content)
    assert read_bundle(tmp_path).manifest["groups"] == 2


@pytest.mark.parametrize("field", ['"groups": 2', '"penalty": 0.3', '"schema": 4', "sha256"])
def test_each_bit_of_what_matters_most(tmp_path: Path, field: str) -> None:
    traced = network()
    write_bundle(tmp_path, traced, decision(traced), backbone="digits-cnn", align=4)
    path = tmp_path / "manifest.json"
    content = path.read_bytes()
    start = content.index(field.encode())
    for bit in range(8 * start, 8 * (start + len(field))):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(DataError, match=r"is damaged|schema == 4"):
            read_bundle(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '"text"', "[]", '{"schema": 4}', '{"schema": 4, "sha256": 1}']
)
def test_a_manifest_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="is damaged"):
        read_bundle(tmp_path)


def test_a_cut_or_missing_file_is_named(tmp_path: Path) -> None:
    write_bundle(tmp_path, network(), FixedPolicy([1, 1, 1]), backbone="digits-cnn", align=4)
    weights = tmp_path / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"'network\.safetensors' is damaged"):
        read_bundle(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"'network\.safetensors' cannot be read"):
        read_bundle(tmp_path)


def test_a_backbone_whose_code_has_changed_since_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path, network(), FixedPolicy([1, 1, 1]), backbone="digits-cnn", align=4)
    forward = Normalise.forward
    monkeypatch.setattr(Normalise, "forward", lambda self, x_BCHW: forward(self, x_BCHW * 0.5))
    with pytest.raises(DataError, match="'digits-cnn' is not the one that was bundled: it comp"):
        read_bundle(tmp_path)


def test_a_policy_of_no_registered_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="RandomPolicy has none"):
        write_bundle(
            tmp_path, network(), RandomPolicy(2, 3, seed=0), backbone="digits-cnn", align=4
        )


def test_a_network_after_surgery_is_built_anew_and_runs_compiled(tmp_path: Path) -> None:
    shape = (3, 8, 8)
    dense = backbones.create("resnet20-cifar", num_classes=10, image_shape=shape, seed=3)
    keep = {group.name: range(1, group.channels, 2) for group in prunable_groups(dense, shape)}
    once = pruned(dense, shape, keep).backbone
    twice = pruned(once, shape, {"layer3.1.conv1": [0, 5]})
    assert twice.kept["layer3.1.conv1"] == [1, 11]
    traced = trace(twice.backbone.eval(), shape, groups=1)
    policy = FixedPolicy(traced.uniform(1))
    write_bundle(tmp_path, traced, policy, backbone="resnet20-cifar", align=4)
    bundle = read_bundle(tmp_path)
    assert bundle.manifest["kept"] == twice.kept
    images_BCHW = torch.rand(6, *shape)
    with torch.no_grad():
        expected = traced.execute(images_BCHW, policy)
        found = bundle.network.execute(images_BCHW, bundle.policy)
    assert torch.equal(found.logits_BK, expected.logits_BK)
    assert torch.equal(found.total_macs_B, expected.total_macs_B)
    ran = deploy(bundle.network).execute(images_BCHW, bundle.policy)
    torch.testing.assert_close(ran.logits_BK, expected.logits_BK, rtol=1e-4, atol=1e-4)
    assert ran.executed_macs_B.tolist() == expected.executed_macs_B.tolist()


def test_a_description_of_other_channels_is_refused(tmp_path: Path) -> None:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE)
    traced = trace(pruned(backbone, SHAPE, {"conv2": [0]}).backbone.eval(), SHAPE, groups=1)
    write_bundle(tmp_path, traced, FixedPolicy([1] * 3), backbone="faces-cnn", align=4)
    with pytest.raises(DataError, match="is not the one that was bundled"):
        read_bundle(tmp_path)

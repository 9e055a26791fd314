"""A traced network: groups, plans and widths of statistics on one set of weights."""

import pytest
import torch
from between import SHAPE, Lambda, pooled
from torch import nn

from runtime_pruning import backbones
from runtime_pruning.errors import ConfigError, TracingError
from runtime_pruning.network import trace


def test_regroup_shares_the_weights() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4)
    other = network.regroup(2)
    assert (other.groups, other.sites[0].bounds) == (2, (0, 4, 8))
    assert network.groups == 4
    assert other.backbone is network.backbone


def test_a_plan_becomes_channels_and_bad_plans_are_refused() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4)
    groups_BL = torch.tensor([[1], [4], [3]])
    assert network.channels(groups_BL).tolist() == [[2], [8], [6]]
    for groups in (0, 5):
        with pytest.raises(ConfigError, match=f"`1 <= groups <= 4` must hold.*{groups}"):
            network.channels(torch.tensor([[groups]]))
    with pytest.raises(ConfigError, match="A plan has 1 sites, but got 2 columns"):
        network.channels(torch.ones(1, 2, dtype=torch.int64))


def test_more_groups_than_a_site_has_channels_are_refused_by_its_name() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4)
    with pytest.raises(TracingError, match=r"Site 'second' cannot be cut: .*groups=9, channels=8"):
        network.regroup(9)


def test_modules_and_attributes_are_found_by_their_paths() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4)
    assert network.module("second") is network.backbone.second
    assert network.module("second.weight") is network.backbone.second.weight
    assert network.module("") is network.backbone


def test_statistics_per_width_are_loaded_strictly() -> None:
    def fresh() -> nn.Module:
        return backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=1)

    conditioned = trace(fresh(), (1, 8, 8), groups=2, align=4).condition_batch_norm()
    kept = conditioned.backbone.state_dict()
    other = trace(fresh(), (1, 8, 8), groups=2, align=4)
    other.load_backbone(kept)
    assert list(other.backbone.state_dict()) == list(kept)
    kept["bn3.other"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"bn3\.other"):
        other.load_backbone(kept)


def test_moving_it_forgets_prepared_slices() -> None:
    network = trace(Lambda(pooled), SHAPE, groups=4).eval()
    images_BCHW = torch.rand(1, *SHAPE)
    plan_BL = torch.ones(1, 1, dtype=torch.int64)
    before_BK = network.run(images_BCHW, plan_BL).logits_BK
    network.double()
    after_BK = network.run(images_BCHW.double(), plan_BL).logits_BK
    assert after_BK.dtype == torch.float64
    torch.testing.assert_close(after_BK.float(), before_BK)


def test_it_prints_its_sites() -> None:
    assert "site 0 second: (0, 2, 4, 6, 8)" in repr(trace(Lambda(pooled), SHAPE, groups=4))

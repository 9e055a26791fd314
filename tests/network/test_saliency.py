"""What a branch makes of features, which channels a policy keeps, and what is refused."""

import pytest
import torch
from torch import nn

from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.saliency import SaliencyBranch, SubsetPolicy, saliency_policy


def two_sites() -> PrunableNetwork:
    """Return 3x3 convolutions, 1 -> 4 -> 100 -> 6 channels; the last two are sites."""
    backbone = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 100, 3),
        nn.Conv2d(100, 6, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )
    return trace(backbone, (1, 9, 9), groups=2, align=1).eval()


@torch.no_grad()
def hand_made() -> SaliencyBranch:
    """Return a branch of 2 features: its saliencies are 1, 1 + f0 - f1 and 1 - f0."""
    branch = SaliencyBranch(2, 3, hidden=2, most=2.5)
    branch.squeeze.weight.copy_(torch.eye(2))
    branch.expand.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0], [-1.0, 0.0]]))
    return branch


def test_saliency_is_clamped_at_both_ends() -> None:
    features_BF = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 0.5], [-7.0, 2.0]])
    # The last: ReLU inside makes (0, 2) of it, so that saliencies are 1, -1 and 1.
    expected = [[1.0, 1.0, 1.0], [1.0, 2.5, 0.0], [1.0, 1.5, 0.0], [1.0, 0.0, 1.0]]
    assert hand_made()(features_BF).tolist() == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert hand_made()(features_BF.bfloat16()).dtype == torch.float32


def test_channels_are_kept_from_the_threshold_on_and_never_at_zero() -> None:
    policy = SubsetPolicy([hand_made()])
    saliency_BC = torch.tensor([[1.0, 0.0, 0.5]])
    assert policy.kept(0, saliency_BC).tolist() == [[True, False, True]]
    policy.thresholds_L[0] = 1.0
    assert policy.kept(0, saliency_BC).tolist() == [[True, False, False]]


def test_branches_fit_the_sites_and_are_squeezed_where_these_are_wide() -> None:
    network = two_sites()
    policy = saliency_policy(network, squeeze=4)
    policy.check_fits(network)
    # 4 -> 25 -> 100, as 100 channels are wide; 100 -> 6 -> 6.
    assert policy.macs_per_image == 4 * 25 + 25 * 100 + 100 * 6 + 6 * 6
    other = saliency_policy(network, squeeze=4)
    assert torch.equal(policy.branch(0).squeeze.weight, other.branch(0).squeeze.weight)
    features_BF = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    assert (policy.saliency(0, features_BF) - 1).abs().mean() < 0.2  # nearly the dense network


def test_what_does_not_fit_is_refused() -> None:
    network = two_sites()
    with pytest.raises(ConfigError, match=r"a branch per site.*\(4, 100\).*but got \[\(2, 3\)\]"):
        SubsetPolicy([hand_made()]).check_fits(network)
    with pytest.raises(ConfigError, match="but got none"):
        SubsetPolicy([])
    with pytest.raises(ConfigError, match="no counts of groups"):
        SubsetPolicy([hand_made()]).start(1)

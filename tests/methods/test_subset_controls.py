"""Controls of subsets: what is dealt, what is alike, and a problem where only one's own helps."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from runtime_pruning import backbones, datasets
from runtime_pruning.errors import ConfigError
from runtime_pruning.methods.evaluation import evaluate
from runtime_pruning.methods.subset_controls import alike, dealt, saliencies_of
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.saliency import SubsetPolicy, saliency_policy

DATA = datasets.load("digits")


def digits_net() -> PrunableNetwork:
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=0)
    return trace(backbone, (1, 8, 8), align=4)


def test_dealt_rows_stay_whole_and_go_to_other_images() -> None:
    policy = saliency_policy(digits_net())
    saliencies = [torch.arange(4.0)[:, None].expand(-1, 16)] * 2 + [torch.zeros(4, 32)]
    control = dealt(policy, saliencies, seed=0)
    seen = [control.saliency(0, torch.zeros(2, 8))[:, 0], control.saliency(1, torch.zeros(2, 16))]
    assert seen[0].tolist() == seen[1][:, 0].tolist()
    control.saliency(2, torch.zeros(2, 16))
    rest = control.saliency(0, torch.zeros(2, 8))[:, 0]
    order = np.random.default_rng(0).permutation(4)
    assert [*seen[0].tolist(), *rest.tolist()] == order.tolist()
    with pytest.raises(ConfigError, match="Saliencies of 3 more images are needed, but 2 of 4"):
        control.saliency(0, torch.zeros(3, 8))


def test_alike_keeps_as_many_of_the_mean_as_the_policy_does() -> None:
    policy = saliency_policy(digits_net())
    policy.thresholds_L.fill_(1.0)
    rows_NC = torch.zeros(2, 16)
    rows_NC[0, :4], rows_NC[1, 3:5] = 1.0, 3.0  # 4 and 2 are kept; the means of 3 and 4: 2.0, 1.5
    control = alike(policy, [rows_NC, rows_NC, torch.ones(2, 32)])
    given_BC = control.saliency(0, torch.zeros(2, 8))
    assert given_BC[0].tolist() == given_BC[1].tolist()
    assert control.thresholds_L[0] == 0.5
    # 3 were asked for, and the third is as salient as the next two.
    assert control.kept(0, given_BC)[0].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]


class Sorted(nn.Module):
    """Two channels inside, of which each alone votes for one class, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1, bias=False)
        self.inside = nn.Conv2d(2, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(2, 10, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.linear(torch.flatten(self.pool(self.inside(self.first(images))), 1))
        return result


@torch.no_grad()
def test_a_policy_that_decides_beats_its_dealt_and_its_static_self() -> None:
    # Bright images are of class 1, dark ones of class 0: the channel that is kept says which.
    split = DATA.validation
    bright_N = split.images_NCHW.reshape(len(split), -1).mean(1) > 80
    network = trace(Sorted(), (1, 8, 8), groups=2, align=1).eval()
    network.backbone.first.weight.fill_(1.0)
    network.backbone.inside.weight.zero_()
    network.backbone.inside.bias.fill_(1.0)
    network.backbone.linear.weight.zero_()
    network.backbone.linear.weight[0, 0] = network.backbone.linear.weight[1, 1] = 1.0
    policy = saliency_policy(network)
    branch = policy.branch(0)
    branch.squeeze.weight.copy_(torch.eye(2) * 255)
    branch.expand.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    branch.expand.bias.copy_(torch.tensor([81.0, -79.0]))
    policy.thresholds_L.fill_(1.0)

    def right(own: SubsetPolicy) -> float:
        return float((evaluate(network, own, split).predictions_B == bright_N).mean())

    saliencies = saliencies_of(network, policy, split, batch_size=100)
    share = float(bright_N.mean())
    assert 0.2 < share < 0.8
    assert right(policy) == 1.0
    assert right(dealt(policy, saliencies, seed=0)) < 0.75
    static = right(alike(policy, saliencies))  # it says one class of all
    assert min(abs(static - share), abs(static - (1 - share))) < 1e-6

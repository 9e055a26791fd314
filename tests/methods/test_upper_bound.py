"""The oracle finds what is cheapest, where it is known."""

from types import ModuleType

import numpy as np
import torch

from runtime_pruning import backbones, datasets
from runtime_pruning.methods.evaluation import judge
from runtime_pruning.methods.upper_bound import cheapest_right_plans
from runtime_pruning.network import trace
from runtime_pruning.network.policies import FixedPolicy, PlanPolicy


def test_only_what_needs_two_groups_gets_them(puzzle: ModuleType) -> None:
    split = puzzle.data(40).validation
    everything_NL = np.full((40, 1), 2)
    plans_NL = cheapest_right_plans(puzzle.network(), split, everything_NL, random_plans=0)
    pixels_NC = split.images_NCHW[:, :, 0, 0]
    needs_two_N = (pixels_NC[:, 2] > 0) & (split.labels_N == 1)
    assert plans_NL[:, 0].tolist() == (1 + needs_two_N).tolist()


def test_the_bound_is_no_worse_and_no_dearer_than_the_best_uniform_width() -> None:
    split = datasets.load("digits").validation.head(60)
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8), seed=1)
    network = trace(backbone, (1, 8, 8), groups=4, align=4).eval()
    start_NL = np.full((60, 3), 3)
    plans_NL = cheapest_right_plans(network, split, start_NL, random_plans=6, refinements=9)
    found = judge(network, PlanPolicy(torch.from_numpy(plans_NL)), split)
    right_N = found.predictions_B == split.labels_N
    for groups in (1, 2, 3, 4):
        facts = judge(network, FixedPolicy([groups] * 3), split)
        also_N = facts.predictions_B == split.labels_N
        assert right_N[also_N].all()
        assert (found.executed_macs_B[also_N] <= facts.executed_macs_B[also_N]).all()
    # Where nothing is right, nothing is spent.
    cheapest = judge(network, FixedPolicy([1] * 3), split).executed_macs_B[0]
    assert (found.executed_macs_B[~right_N] == cheapest).all()

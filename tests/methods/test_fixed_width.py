"""Fixed widths are reported narrowest first, each with statistics of its own."""

import torch
from controls import reported, task


def test_fixed_width_reports_every_width_narrowest_first() -> None:
    assert reported("fixed-width", task()) == [([g] * 3, False) for g in (1, 2, 3, 4)]


def test_fixed_width_takes_statistics_anew_for_each_width() -> None:
    given = task()
    given.network.condition_batch_norm()
    norm = given.network.backbone.bn2
    before = norm.running_mean.clone()
    reported("fixed-width", given)
    assert not torch.equal(norm.running_mean, before)

"""Batch-norm statistics per width read, against values worked out by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn

from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.batch_norm import batch_norm, condition, start_counting, statistics


def conditioned() -> nn.BatchNorm2d:
    """Two channels, widths 1, 2 and 4; means 0 at first, variances 1."""
    norm = nn.BatchNorm2d(2, eps=1e-30)
    condition(norm, [1, 2, 4])
    norm.get_buffer("narrow_means").copy_(torch.tensor([[10.0, 20.0], [30.0, 40.0]]))
    return norm.eval()


def images(*values: float) -> Tensor:
    """One 1x1 image per value, the same in both channels."""
    return (
        torch.tensor([float(v) for v in values])[:, None, None, None]
        .expand(-1, 2, 1, 1)
        .contiguous()
    )


def test_each_image_is_normalised_by_the_width_that_it_reads() -> None:
    # Width 1: means 10, 30; width 2: 20, 40; width 4: 0, 0. Variances are 1.
    result = batch_norm(conditioned(), images(50, 50, 50), None, torch.tensor([1, 2, 4]))
    assert result[:, :, 0, 0].tolist() == [[40, 20], [30, 10], [50, 50]]
    for row, read in enumerate((1, 2, 4)):
        alone = batch_norm(conditioned(), images(50), None, read)
        assert torch.equal(alone[0], result[row])


def test_an_unknown_width_is_served_by_the_next_greater() -> None:
    norm = conditioned()
    three = batch_norm(norm, images(50, 50), None, torch.tensor([3, 3]))
    assert three[0, :, 0, 0].tolist() == [50, 50]
    assert statistics(norm, 3).mean_C is norm.running_mean


def test_without_a_width_the_plain_statistics_apply() -> None:
    assert batch_norm(conditioned(), images(50), None)[0, :, 0, 0].tolist() == [50, 50]


@pytest.mark.parametrize("read", [2, torch.tensor([2, 2])])
def test_training_moves_the_statistics_of_the_width_that_was_read(read: int | Tensor) -> None:
    norm = conditioned().train()
    batch_norm(norm, images(1, 3), None, read)
    # Momentum 0.1, batch mean 2, unbiased variance 2.
    assert statistics(norm, 2).mean_C.tolist() == pytest.approx([18.2, 36.2])
    assert statistics(norm, 2).var_C.tolist() == pytest.approx([1.1, 1.1])
    assert statistics(norm, 1).mean_C.tolist() == [10, 30]
    assert norm.running_mean.tolist() == [0, 0]


def test_counting_averages_each_width_on_its_own() -> None:
    norm = conditioned().train()
    start_counting(norm)
    for values in ((1.0, 3.0, 100.0), (5.0, 7.0, 300.0)):
        batch_norm(norm, images(*values), None, torch.tensor([1, 1, 4]))
    assert statistics(norm, 1).mean_C.tolist() == pytest.approx([4, 4])
    assert norm.running_mean.tolist() == pytest.approx([200, 200])
    assert statistics(norm, 2).mean_C.tolist() == [20, 40]


@pytest.mark.parametrize("shape", [(6, 3, 2, 2), (6, 3, 1, 1), (1, 3, 1, 1)])
def test_images_that_compute_all_channels_need_not_say_so(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    start_counting(norm)
    other = copy.deepcopy(norm)
    for scale in (1.0, 5.0):
        features = scale * torch.randn(shape, dtype=torch.float64)
        unsaid = batch_norm(norm, features, None)
        said = batch_norm(other, features, torch.ones(shape[:2], dtype=torch.bool))
        torch.testing.assert_close(unsaid, said)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, other.get_buffer(name))


def small() -> PrunableNetwork:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return trace(nn.Sequential(*layers, nn.Linear(8, 3)), (1, 8, 8), groups=4, align=2)


def test_only_layers_that_read_pruned_channels_are_conditioned() -> None:
    network = small().condition_batch_norm()
    first, second = (network.backbone[2], network.backbone[5])
    assert "narrow_widths" not in dict(first.named_buffers())
    assert second.narrow_widths.tolist() == [2, 4, 6]
    assert second.narrow_means.shape == (8, 3)


def test_conditioned_weights_load_into_a_fresh_network() -> None:
    network = small().condition_batch_norm().eval()
    network.backbone[5].narrow_means.normal_()
    fresh = small().eval()
    fresh.load_backbone(copy.deepcopy(network.backbone.state_dict()))
    images_BCHW, plans_BL = torch.rand(3, 1, 8, 8), torch.tensor([[1, 2], [2, 1], [4, 4]])
    expected = network.run(images_BCHW, plans_BL).logits_BK
    assert torch.equal(fresh.run(images_BCHW, plans_BL).logits_BK, expected)


def test_coarser_groups_use_the_finer_statistics() -> None:
    network = small().condition_batch_norm().eval()
    network.backbone[5].narrow_means.normal_()
    images_BCHW = torch.rand(2, 1, 8, 8)
    coarse = network.regroup(2, align=2)
    expected = network.run(images_BCHW, torch.tensor([[2, 2], [4, 2]])).logits_BK
    found = coarse.run(images_BCHW, torch.tensor([[1, 1], [2, 1]])).logits_BK
    assert torch.allclose(found, expected, atol=1e-6)

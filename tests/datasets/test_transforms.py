"""Bytes to floats, crops and flips: expected pixels worked out by hand."""

import numpy as np
import pytest
import torch

from runtime_pruning import datasets
from runtime_pruning.errors import DataError


def test_to_float_divides_by_255() -> None:
    images = np.array([[0, 51, 255]], np.uint8)
    expected = torch.tensor([[0.0, 0.2, 1.0]])
    assert torch.equal(datasets.to_float(images), expected)
    assert torch.equal(datasets.to_float(torch.from_numpy(images)), expected)


def test_to_float_leaves_its_input_alone() -> None:
    images = np.full((2, 3), 255, np.uint8)
    images.flags.writeable = False
    datasets.to_float(images).zero_()
    assert images.min() == 255


@pytest.mark.parametrize("images", [np.zeros(3), torch.zeros(3)])
def test_to_float_refuses_floats(images: object) -> None:
    with pytest.raises(DataError, match=r"must be uint8, but got .*float"):
        datasets.to_float(images)  # type: ignore[arg-type]


def test_without_crop_and_flip_nothing_changes() -> None:
    images_BCHW = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    same = datasets.augment(images_BCHW, pad=0, flip=False, generator=torch.Generator())
    assert torch.equal(same, images_BCHW)


def test_each_crop_is_a_shift_of_its_image_with_zeros_beyond() -> None:
    generator = torch.Generator().manual_seed(0)
    image_HW = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    # All nine 2x2 windows of the image with one ring of zeros, in reading order.
    windows = [
        [[0, 0], [0, 1]], [[0, 0], [1, 2]], [[0, 0], [2, 0]],
        [[0, 1], [0, 3]], [[1, 2], [3, 4]], [[2, 0], [4, 0]],
        [[0, 3], [0, 0]], [[3, 4], [0, 0]], [[4, 0], [0, 0]],
    ]  # fmt: skip
    crops_BCHW = datasets.augment(
        image_HW.expand(900, 2, 2, 2), pad=1, flip=False, generator=generator
    )
    assert torch.equal(crops_BCHW[:, 0], crops_BCHW[:, 1]), "channels must move together"
    counts = [int((crops_BCHW[:, 0] == torch.tensor(w)).all(-1).all(-1).sum()) for w in windows]
    assert sum(counts) == 900
    assert min(counts) > 60, "each of the nine shifts is drawn 100 times on average"


def test_half_of_the_images_are_mirrored() -> None:
    generator = torch.Generator().manual_seed(0)
    row_BCHW = torch.tensor([1.0, 2.0, 3.0]).expand(400, 1, 1, 3)
    out_BCHW = datasets.augment(row_BCHW, pad=0, flip=True, generator=generator)
    mirrored_B = (out_BCHW[:, 0, 0] == torch.tensor([3.0, 2.0, 1.0])).all(-1)
    kept_B = (out_BCHW[:, 0, 0] == torch.tensor([1.0, 2.0, 3.0])).all(-1)
    assert bool((mirrored_B | kept_B).all())
    assert 150 < int(mirrored_B.sum()) < 250


def test_the_generator_alone_decides() -> None:
    images_BCHW = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return datasets.augment(images_BCHW, pad=2, flip=True, generator=generator)

    assert torch.equal(draw(5), draw(5))
    assert not torch.equal(draw(5), draw(6))


def test_a_negative_pad_is_refused() -> None:
    with pytest.raises(DataError, match="`pad >= 0` must hold, but got -1"):
        datasets.augment(torch.zeros(1, 1, 2, 2), pad=-1, flip=False, generator=torch.Generator())

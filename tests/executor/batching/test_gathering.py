"""Some images of a batch."""

import torch

from runtime_pruning.executor.batching.gathering import gathered


def test_images_keep_their_layout() -> None:
    plain = torch.arange(24.0).view(3, 2, 2, 2)
    last = plain.contiguous(memory_format=torch.channels_last)
    rows_N = torch.tensor([2, 0])
    assert torch.equal(gathered(plain, rows_N), plain[[2, 0]])
    assert torch.equal(gathered(last, rows_N), plain[[2, 0]])
    assert gathered(last, rows_N).is_contiguous(memory_format=torch.channels_last)
    first = last.narrow(1, 0, 1)  # the first channel of each pixel
    assert torch.equal(gathered(first, rows_N), plain[[2, 0], :1])
    assert torch.equal(
        gathered(torch.tensor([[1.0], [2.0], [3.0]]), rows_N), torch.tensor([[3.0], [1.0]])
    )

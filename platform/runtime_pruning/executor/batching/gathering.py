"""Some images of a batch, in the layout that they had."""

from torch import Tensor


def gathered(tensor: Tensor, rows_N: Tensor) -> Tensor:
    """Return some images, in the layout that they had."""
    rows_N = rows_N.to(tensor.device)
    if tensor.ndim == 4 and tensor.stride(1) == 1:  # channels last, perhaps not all of them
        return tensor.permute(0, 2, 3, 1).index_select(0, rows_N).permute(0, 3, 1, 2)
    return tensor.index_select(0, rows_N)

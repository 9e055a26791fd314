"""A third party's backbone: the whole plugin is this function and one line in pyproject.toml."""

from torch import nn


def example_plain(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Return three convolutions of 16 channels, global average, linear."""
    return nn.Sequential(
        nn.Conv2d(image_shape[0], 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_classes),
    )

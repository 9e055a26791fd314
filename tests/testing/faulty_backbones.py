"""Backbones with one fault each, and one without; imported by name, so that they pickle."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Sound(nn.Module):
    """Four convolutions with nothing wrong."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.between: nn.Module = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.linear = nn.Linear(16, classes)

    def enter(self, images: Tensor) -> Tensor:
        return images

    def middle(self, x: Tensor) -> Tensor:
        return self.between(x)

    def leave(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(self.enter(images)).relu()
        x = self.middle(self.norm(self.conv1(x)))
        return self.leave(self.conv2(x).relu())


class TooManyLogits(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(2 * classes)


class LooksAtTheData(Sound):
    def enter(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class MixesChannels(Sound):
    def middle(self, x: Tensor) -> Tensor:
        return x.softmax(1)


class CallsTwice(Sound):
    def leave(self, x: Tensor) -> Tensor:
        return super().leave(self.conv2(x))


class NoSite(Sound):
    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.first(images).mean((2, 3)).repeat(1, 2))


class Noisy(Sound):
    def enter(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


class Constant(Sound):
    def leave(self, x: Tensor) -> Tensor:
        return super().leave(x * 0)


class TrainsOtherwise(Sound):
    def enter(self, images: Tensor) -> Tensor:
        return images * 2 if self.training else images


class WronglyDeclared(Sound):
    """Softmax over channels, which its author declares to be per channel."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.between = nn.Softmax2d()


class HiddenMultiplications(Sound):
    """A convolution by another name, which nobody counts."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("kernel", torch.rand(3, 3, 1, 1))

    def enter(self, images: Tensor) -> Tensor:
        return functional.conv_transpose2d(images, self.kernel)  # type: ignore[arg-type]


class LooksAtOthers(Sound):
    def enter(self, images: Tensor) -> Tensor:
        return images - images.mean(0, keepdim=True)


class CannotTravel(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.hook: Any = lambda x: x

"""What an episode starts from: which image, at which penalty.

Dimensions: B images per batch, N images in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_envs.protocols import Images


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of the images: those at ``index``, ``index + count``, ..."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"`0 <= index < count` must hold for a shard, but got {self}.")


ALL_IMAGES = Shard()


@dataclass(frozen=True)
class PenaltyRange:
    """The penalties that episodes run under, log-uniform between the ends.

    Attributes:
        low, high: reward lost per unit of cost; equal ends fix the penalty.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < np.inf:
            raise ValueError(
                "`0 <= low <= high < inf` must hold for a penalty, but got "
                f"low={self.low}, high={self.high}."
            )
        if self.low == 0 < self.high:
            raise ValueError(
                f"A penalty drawn log-uniformly needs `low > 0`, but got 0 to {self.high}."
            )

    @classmethod
    def of(cls, penalty: "float | Sequence[float] | PenaltyRange") -> "PenaltyRange":
        """Return the range that a number, a pair or a range stands for."""
        if isinstance(penalty, PenaltyRange):
            return penalty
        if isinstance(penalty, Sequence):
            low, high = penalty
            return cls(float(low), float(high))
        if not 0 <= penalty < np.inf:
            raise ValueError(f"`0 <= penalty < inf` must hold, but got {penalty}.")
        return cls(float(penalty), float(penalty))

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return ``penalty_B``."""
        if self.low == self.high:
            return np.full(count, self.low, np.float32)
        drawn_B = np.exp(rng.uniform(np.log(self.low), np.log(self.high), count))
        return np.clip(drawn_B, self.low, self.high).astype(np.float32)


class ImageQueue:
    """Hands out image indices in passes: every image of the shard once, then again.

    Args:
        images_NCHW: uint8; never copied, may be read-only, need not be in memory.
        labels_N: class indices.
        shard: the part that this queue hands out.
        shuffle: a new order in every pass, else ascending indices.

    Raises:
        ValueError: the arrays are not of that form, or the shard is empty.
    """

    def __init__(
        self,
        images_NCHW: Images,
        labels_N: NDArray[np.int64],
        *,
        shard: Shard = ALL_IMAGES,
        shuffle: bool = True,
    ) -> None:
        if images_NCHW.ndim != 4 or images_NCHW.dtype != np.uint8:
            raise ValueError(
                "Images must be uint8 of shape (N, C, H, W), but got "
                f"{images_NCHW.dtype} of shape {images_NCHW.shape}."
            )
        if labels_N.shape != (len(images_NCHW),):
            raise ValueError(
                f"Each image needs one label, but got {len(images_NCHW)} images and labels of "
                f"shape {labels_N.shape}."
            )
        self.images_NCHW = images_NCHW
        self.labels_N = labels_N
        self.shard = shard
        self.shuffle = shuffle
        self._own = np.arange(shard.index, len(images_NCHW), shard.count)
        if not len(self._own):
            raise ValueError(f"{shard} of {len(images_NCHW)} images is empty.")
        self.restart()

    def restart(self) -> None:
        """Forget the current pass."""
        self._pending = np.empty(0, np.int64)

    def take(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the next ``index_B``, starting as many passes as that needs."""
        while len(self._pending) < count:
            next_pass = rng.permutation(self._own) if self.shuffle else self._own
            self._pending = np.concatenate([self._pending, next_pass])
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

"""Handwritten digits on a cluttered ground, from easy to hard: generated, no download.

scikit-learn's 1,797 digits of 8x8 pixels are scaled, turned and put somewhere on 32x32 grey pixels,
among pieces of other digits, under noise. How small, turned, faint, cluttered and noisy an image is
follows from its `difficulty`, a function of its id that is spread evenly over [0, 1). The source
digits of the four splits are those of the splits of `digits`: none is in two, but each is in about
a dozen images of its split.

What is not placing is done in integers, and the random stream is the one that numpy has frozen: the
images are the same on all machines.

Source: after "Cluttered Translated MNIST" of Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of
Visual Attention", NeurIPS 2014, section 4.1.

Dimensions: N images, G source digits, H W pixels (of an image, or of the square that holds a
piece of clutter), I pixels inside a digit.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runtime_pruning.datasets.cache import cache_folder, cached_table
from runtime_pruning.datasets.catalogue import register
from runtime_pruning.datasets.digits import INFO as DIGITS
from runtime_pruning.datasets.digits import source_digits, split_rows
from runtime_pruning.datasets.images import Int64Array, UInt8Array
from runtime_pruning.datasets.splits import (
    DatasetInfo,
    ImageDataset,
    PolicySplit,
    Split,
    TestSplit,
    TrainingSplit,
    ValidationSplit,
)

VERSION = 1  # counts changes to how images are drawn from the settings below
SIDE = 32
SIZES = (16_000, 3_000, 3_000, 5_000)  # training, policy, validation, test

Ends = tuple[float, float]

# Of an image of difficulty 0, and of one of difficulty 1.
SCALE: Ends = (3.6, 2.1)  # pixels of the image per pixel of the source
TURN: Ends = (3, 25)  # degrees, at most, to either side
CONTRAST: Ends = (1.0, 0.6)  # of the ink: its share of the way from the ground to white
PIECES: Ends = (0, 5)  # of clutter
NOISE: Ends = (8, 38)  # levels of a pixel, at most, up or down

# Of each image or piece, by chance.
JITTER: Ends = (0.9, 1.1)  # of scale and contrast
GROUND: Ends = (0, 60)  # levels
PIECE_SIDE: Ends = (3, 5)  # pixels of the source that a piece is cut from
PIECE_SCALE: Ends = (1.5, 2.6)
PIECE_CONTRAST: Ends = (0.6, 1.0)  # of the digit's

SQUARE = 20  # pixels of the side: it holds any piece, however turned
GLYPH = 8  # pixels of the side of a source digit
INK_HALF = 3.5  # pixels from the middle of a source digit to the end of its ink
CHUNK = 500  # images that are drawn at once: what they take fits a processor's cache

# All that the images depend on, to tell kept ones from those of another release.
_RECIPE = (
    VERSION, SIZES, SCALE, TURN, CONTRAST, PIECES, NOISE,
    JITTER, GROUND, PIECE_SIDE, PIECE_SCALE, PIECE_CONTRAST,
)  # fmt: skip

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@register("cluttered-digits")
def load_cluttered_digits(data_dir: Path | None = None) -> ImageDataset:
    """Return the images, drawn in seconds and kept in the cache folder; no folder is read."""
    key = hashlib.sha256(repr(_RECIPE).encode()).hexdigest()[:16]
    path = cache_folder() / "generated" / f"{INFO.name}-{key}.arrow"
    table = cached_table(path, INFO.schema, _draw_all)
    ends = np.cumsum(SIZES)
    training, policy, validation, test = (
        table.slice(end - size, size) for end, size in zip(ends, SIZES, strict=True)
    )
    return ImageDataset(
        INFO,
        TrainingSplit(INFO, training),
        PolicySplit(INFO, policy),
        ValidationSplit(INFO, validation),
        TestSplit(INFO, test),
    )


def difficulty(ids_N: Int64Array) -> FloatArray:
    """Return how hard the images of some ids are, from 0 to (not quite) 1.

    Consecutive ids are spread evenly, by multiples of the golden ratio.
    """
    return (ids_N * 2_654_435_769 % 2**32) / 2**32


def source_rows(ids_N: Int64Array) -> Int64Array:
    """Return which of scikit-learn's digits the images of some ids show."""
    return np.concatenate(_sources_by_split())[ids_N]


INFO = DatasetInfo("cluttered-digits", DIGITS.classes, (1, SIDE, SIDE), source_rows)


def _sources_by_split() -> list[Int64Array]:
    """Return the source digit of each image: each split's own, in turn, classes in proportion."""
    return [np.resize(rows, size) for rows, size in zip(split_rows(), SIZES, strict=True)]


def _draw_all() -> pa.Table:
    """Return all images, those of one split after those of the one before."""
    levels_GHW, labels_G = source_digits()
    canvas = _Canvas(levels_GHW)
    sources = _sources_by_split()
    ids = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    images = [canvas.draw(*each) for each in zip(ids, sources, split_rows(), strict=True)]
    images_NCHW = np.concatenate(images)[:, None]
    return Split.from_arrays(INFO, images_NCHW, labels_G[np.concatenate(sources)]).table


class _Placing(NamedTuple):
    """Where a source digit lies on a square of pixels."""

    x_N: FloatArray  # of the digit's middle, in pixels of the square
    y_N: FloatArray
    scale_N: FloatArray  # pixels of the square per pixel of the source
    turn_N: FloatArray  # radians

    def source_points(self, side: int) -> tuple[FloatArray, FloatArray]:
        """Return, for each pixel of a square, how far right and below the middle it shows."""
        cos, sin = np.cos(self.turn_N) / self.scale_N, np.sin(self.turn_N) / self.scale_N
        across, down = np.arange(side) - self.x_N[:, None], np.arange(side) - self.y_N[:, None]
        across_NHW, down_NHW = across[:, None, :], down[:, :, None]
        cos_NHW, sin_NHW = cos[:, None, None], sin[:, None, None]
        return (
            across_NHW * cos_NHW + down_NHW * sin_NHW,
            down_NHW * cos_NHW - across_NHW * sin_NHW,
        )


class _Canvas:
    """Draws images.

    Args:
        levels_GHW: source digits, 0 to 16.
    """

    def __init__(self, levels_GHW: IntArray) -> None:
        self.glyphs = np.pad(levels_GHW, ((0, 0), (1, 1), (1, 1)))  # a ring of no ink

    def draw(self, ids_N: Int64Array, sources_N: Int64Array, pool: Int64Array) -> UInt8Array:
        """Return images of some ids.

        Args:
            ids_N: their difficulty, and the seed of all that is chance.
            sources_N: rows of the digits that they show.
            pool: rows of the digits that clutter is cut from.
        """
        random = np.random.RandomState(int(ids_N[0]))
        chunks = [slice(start, start + CHUNK) for start in range(0, len(ids_N), CHUNK)]
        drawn = [self._draw(ids_N[each], sources_N[each], pool, random) for each in chunks]
        return np.concatenate(drawn)

    def _draw(
        self,
        ids_N: Int64Array,
        sources_N: Int64Array,
        pool: Int64Array,
        random: np.random.RandomState,
    ) -> UInt8Array:
        # Hard images are rarer than easy ones. A square root is exact, as no other power is.
        hardness_N = difficulty(ids_N) * np.sqrt(difficulty(ids_N))
        contrast_N = _between(CONTRAST, hardness_N) * _drawn(JITTER, len(ids_N), random)
        ink_NHW = self._digits(sources_N, hardness_N, random) * _parts(contrast_N) >> 8
        clutter_NHW = self._clutter(pool, hardness_N, contrast_N, random)
        ground_N11 = np.rint(_drawn(GROUND, len(ids_N), random)).astype(np.int64)[:, None, None]
        ink_NHW = np.maximum(ink_NHW, clutter_NHW)
        levels_NHW = ground_N11 + ((255 - ground_N11) * ink_NHW >> 8)
        noise_NHW = random.randint(-256, 257, ink_NHW.shape) * _parts(_between(NOISE, hardness_N))
        images_NHW: UInt8Array = np.clip(levels_NHW + (noise_NHW >> 16), 0, 255).astype(np.uint8)
        return images_NHW

    def _digits(
        self, sources_N: Int64Array, hardness_N: FloatArray, random: np.random.RandomState
    ) -> IntArray:
        """Return the ink of the digits, 0 to 255, each wholly inside its image."""
        count = len(sources_N)
        scale_N = _between(SCALE, hardness_N) * _drawn(JITTER, count, random)
        half_N = np.minimum(INK_HALF * scale_N, (SIDE - 1) / 2)
        x_N, y_N = (
            half_N + (SIDE - 1 - 2 * half_N) * random.random_sample(count) for _ in range(2)
        )
        turn_N = np.deg2rad(_between(TURN, hardness_N)) * _drawn((-1, 1), count, random)
        right_NHW, below_NHW = _Placing(x_N, y_N, scale_N, turn_N).source_points(SIDE)
        middle = (GLYPH - 1) / 2
        return self._ink(sources_N, right_NHW + middle, below_NHW + middle)

    def _clutter(
        self,
        pool: Int64Array,
        hardness_N: FloatArray,
        contrast_N: FloatArray,
        random: np.random.RandomState,
    ) -> IntArray:
        """Return the ink of all pieces of clutter, 0 to 255."""
        around = SQUARE // 2
        wide_NHW = np.zeros((len(hardness_N), SIDE + SQUARE, SIDE + SQUARE), np.int64)
        count_N = np.rint(
            _between(PIECES, hardness_N) + random.random_sample(len(hardness_N)) - 0.5
        )
        for piece in range(int(count_N.max())):
            images = np.flatnonzero(count_N > piece)
            ink_NHW = self._piece(pool, len(images), random)
            strength_N = contrast_N[images] * _drawn(PIECE_CONTRAST, len(images), random)
            ink_NHW = ink_NHW * _parts(strength_N) >> 8
            top, left = random.randint(0, SIDE, (2, len(images), 1, 1))
            rows, columns = np.ogrid[:SQUARE, :SQUARE]
            place = images[:, None, None], top + rows, left + columns
            wide_NHW[place] = np.maximum(wide_NHW[place], ink_NHW)
        return wide_NHW[:, around : around + SIDE, around : around + SIDE]

    def _piece(self, pool: Int64Array, count: int, random: np.random.RandomState) -> IntArray:
        """Return one piece of clutter for each of some images, in the middle of a square."""
        middle_N = np.full(count, (SQUARE - 1) / 2)
        scale_N, turn_N = _drawn(PIECE_SCALE, count, random), _drawn((0, 2 * np.pi), count, random)
        right_NHW, below_NHW = _Placing(middle_N, middle_N, scale_N, turn_N).source_points(SQUARE)
        half_N = _drawn(PIECE_SIDE, count, random) / 2
        inside_NHW = np.maximum(abs(right_NHW), abs(below_NHW)) <= half_N[:, None, None]
        x_N, y_N = (
            half_N - 0.5 + (GLYPH - 2 * half_N) * random.random_sample(count) for _ in range(2)
        )
        sources_N = pool[random.randint(0, len(pool), count)]
        return self._ink(
            sources_N, right_NHW + x_N[:, None, None], below_NHW + y_N[:, None, None], inside_NHW
        )

    def _ink(
        self,
        sources_N: Int64Array,
        x_NHW: FloatArray,
        y_NHW: FloatArray,
        inside_NHW: npt.NDArray[np.bool_] | None = None,
    ) -> IntArray:
        """Return the ink at points of source digits, 0 to 255: bilinear, 0 outside.

        Points count from the middle of the first pixel, and are rounded to 1/256 of a pixel.

        Args:
            sources_N: rows of the source digits.
            x_NHW: columns of the points.
            y_NHW: rows of the points.
            inside_NHW: which points are asked for; all by default.
        """
        side = self.glyphs.shape[1]
        column_NHW = np.rint(256 * x_NHW).astype(np.int64) + 256  # the ring is a pixel wide
        row_NHW = np.rint(256 * y_NHW).astype(np.int64) + 256
        inside_NHW = np.ones(x_NHW.shape, bool) if inside_NHW is None else inside_NHW
        for each_NHW in (column_NHW, row_NHW):
            inside_NHW = inside_NHW & (each_NHW >= 0) & (each_NHW < 256 * (side - 1))
        x_I, y_I = column_NHW[inside_NHW], row_NHW[inside_NHW]
        first_I = np.nonzero(inside_NHW)[0]
        corner_I = (sources_N[first_I] * side + (y_I >> 8)) * side + (x_I >> 8)
        levels, right_I, low_I = self.glyphs.ravel(), x_I & 255, y_I & 255
        above_I = levels[corner_I] * (256 - right_I) + levels[corner_I + 1] * right_I
        corner_I += side
        below_I = levels[corner_I] * (256 - right_I) + levels[corner_I + 1] * right_I
        ink_NHW = np.zeros(x_NHW.shape, np.int64)
        ink_NHW[inside_NHW] = (above_I * (256 - low_I) + below_I * low_I) * 255 >> 20
        return ink_NHW


def _between(ends: Ends, share_N: FloatArray) -> FloatArray:
    """Return what lies at a share of the way from the first end to the second."""
    return ends[0] + (ends[1] - ends[0]) * share_N


def _drawn(ends: Ends, count: int, random: np.random.RandomState) -> FloatArray:
    """Return numbers between two ends, by chance."""
    return _between(ends, random.random_sample(count))


def _parts(share_N: FloatArray) -> IntArray:
    """Return shares in whole 256ths, shape (N, 1, 1)."""
    return np.rint(256 * share_N).astype(np.int64)[:, None, None]

"""Pictures of decisions are drawn, whatever there is to draw."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from runtime_pruning import datasets
from runtime_pruning.frontier.decisions_picture import draw_gallery
from runtime_pruning.frontier.records import Record


def record_of(rows: int, channels: int = 1) -> Record:
    """Return a record of the first validation digits, the later the dearer."""
    split = datasets.load("digits").validation.head(rows)
    return Record.from_arrays(
        split="validation",
        image_ids_N=split.ids_N,
        labels_N=split.labels_N,
        predictions_N=split.labels_N,
        losses_N=np.zeros(rows, np.float32),
        channels_NL=np.ones((rows, 1), np.int64),
        executed_macs_N=np.arange(1, rows + 1),
    )


@pytest.mark.parametrize(("rows", "lines"), [(1, 1), (5, 1), (30, 2), (300, 2)])
def test_cheap_and_dear_images_are_shown_in_as_many_rows_as_there_are(
    rows: int, lines: int, tmp_path: Path
) -> None:
    path = tmp_path / "gallery.png"
    split = datasets.load("digits").validation
    draw_gallery(record_of(rows), split, path, dense_macs=1000, title="digits")
    pixels = imread(path)
    assert pixels.shape[1] == pytest.approx(13 * 140, abs=2)
    assert pixels.shape[0] == pytest.approx((0.65 + 2 * (0.3 + 1.3 * lines)) * 140, abs=2)
    assert pixels[..., :3].min() < 0.2  # there is ink

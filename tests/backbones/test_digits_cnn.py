"""The digits networks: sizes worked out by hand; one learns its dataset in seconds."""

from collections.abc import Callable

import numpy as np
import torch
import torch.fx
from torch.nn import functional

from runtime_pruning import backbones, datasets

DIGITS = (1, 8, 8)


Count = Callable[[str, tuple[int, int, int]], tuple[int, int]]


def test_digits_cnn_has_the_size_of_its_docstring(executed_macs: Count) -> None:
    # 1 * 8 * 9 * 64 + 8 * 16 * 9 * 64 on 8x8; 16 * 16 * 9 * 16 + 16 * 32 * 9 * 16 on 4x4.
    conv = 4_608 + 73_728 + 36_864 + 73_728
    assert executed_macs("digits-cnn", DIGITS) == (conv, 320)


def test_cluttered_digits_cnn_has_the_size_of_its_docstring(executed_macs: Count) -> None:
    # 1 * 16 * 9 on 32x32; 16 * 32 * 9 on 16x16; 32 * 32 * 9 and 32 * 64 * 9 on 8x8.
    conv = 147_456 + 1_179_648 + 589_824 + 1_179_648
    assert executed_macs("cluttered-digits-cnn", (1, 32, 32)) == (conv, 640)


EPOCHS = 20
BATCH = 64


def test_digits_cnn_reaches_97_5_percent_on_unseen_digits() -> None:
    digits = datasets.load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=(1, 8, 8))
    images_NCHW = datasets.to_float(digits.training.images_NCHW)
    labels_N = torch.tensor(digits.training.labels_N)
    generator = torch.Generator().manual_seed(0)
    steps = EPOCHS * (len(labels_N) // BATCH)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels_N), generator=generator).split(BATCH)[:-1]:
            batch_BCHW = datasets.augment(images_NCHW[rows], pad=1, flip=False, generator=generator)
            loss = functional.cross_entropy(backbone(batch_BCHW), labels_N[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.inference_mode():
        images_NCHW = datasets.to_float(digits.validation.images_NCHW)
        predictions_N = backbone.eval()(images_NCHW).argmax(-1).numpy()
    assert np.mean(predictions_N == digits.validation.labels_N) >= 0.975

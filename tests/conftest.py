"""Whole sweeps start first, then what else is long, so that two workers end at about the same time.

And photographs for tests of datasets and of whole sweeps.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow.fs import FileSystem

if TYPE_CHECKING:
    from exported_bundle import Exported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [item.get_closest_marker(mark) is None for mark in ("ray", "slow")])
    if not os.environ.get("RUNTIME_PRUNING_LONG_TESTS"):
        left_out = pytest.mark.skip(reason="long: set RUNTIME_PRUNING_LONG_TESTS")
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(left_out)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Leave torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image.Image]:
    """Draws noise on a colour of its class, which a network learns to tell in one epoch."""

    def draw(label: int, seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 128, (height, width, 3), np.uint8)
        pixels[..., label % 3] += 127
        return Image.fromarray(pixels)

    return draw


@pytest.fixture(scope="session")
def write_photographs(photograph: Callable[..., Image.Image]) -> Callable[..., Path]:
    """Writes JPEGs below a folder, so many for each class folder."""

    def write(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (40, 30)) -> Path:
        labels = sorted({Path(folder).name for folder in counts})
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                label = labels.index(Path(folder).name)
                seed = 1_000 * sorted(counts).index(folder) + number
                photograph(label, seed, size).save(root / folder / f"{number:03d}.jpg")
        return root

    return write


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> "Exported":
    """An exported bundle of a real, small network, with a dial of three stops."""
    from exported_bundle import export_digits

    return export_digits(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an S3 server's bucket, with all that a client must be told."""
    from moto.server import ThreadedMotoServer  # takes seconds, which few tests need

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or a failure shows every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    filesystem, bucket = FileSystem.from_uri(
        f"s3://user:secret@sweeps?{options}&allow_bucket_creation=true"
    )
    filesystem.create_dir(bucket)
    yield f"s3://user:secret@sweeps/{{}}?{options}"
    server.stop()

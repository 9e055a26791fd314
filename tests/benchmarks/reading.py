"""How fast photographs are read, by form and by number of threads, and in how much memory.

Run:     python tests/benchmarks/reading.py
Expect:  a line per form and number of threads, twice, so that a machine that slows down shows:
         images per second of wall and of CPU time, and the growth of peak memory.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from runtime_pruning.datasets.folder import list_files
from runtime_pruning.datasets.images import LazyImages
from runtime_pruning.datasets.parquet import list_parquet, parquet_files
from runtime_pruning.datasets.stored import ImageStore, StoredImages

SIZE = 224
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "files", options.images)
        write_parquet(folder / "files", folder / "parquet")
        files = list_files(folder / "files").encoded
        parquet = list_parquet(parquet_files(folder / "parquet"), folder / "cache").encoded
        for _ in range(2):
            for threads in options.threads:
                torch.set_num_threads(threads)
                for form, encoded in (("files", files), ("parquet", parquet)):
                    store = ImageStore(encoded, SIZE, "crop", cache_bytes=0)
                    speed = measure(StoredImages(store, np.arange(len(encoded))))
                    print(f"{form:8} {threads} threads: {speed}")
        kept = StoredImages(ImageStore(files, SIZE, "crop"), np.arange(len(files)))
        measure(kept)
        print(f"{'kept':8} in memory: {measure(kept)}")


class Speed(NamedTuple):
    """Of one pass over all images."""

    by_wall: float  # images per second
    by_cpu: float  # images per second that all threads together computed
    grown: float  # peak memory, in MiB

    def __str__(self) -> str:
        return (
            f"{self.by_wall:6.0f} per s, {self.by_cpu:6.0f} per CPU s, peak +{self.grown:.0f} MiB"
        )


def measure(images: LazyImages) -> Speed:
    """Read all images once, in batches of a random order."""
    order_N = np.random.default_rng(0).permutation(len(images))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, computed = time.perf_counter(), time.process_time()
    for start in range(0, len(images), BATCH):
        images[order_N[start : start + BATCH]]
    seconds, busy = time.perf_counter() - started, time.process_time() - computed
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Speed(len(images) / seconds, len(images) / busy, grown)


def write_files(folder: Path, count: int) -> None:
    """Write JPEGs of 500 x 375 pixels and about 100 KB, as ImageNet's are."""
    random = np.random.default_rng(0)
    for row in range(count):
        path = folder / f"class{row % 2}" / f"{row:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (94, 125, 3), np.uint8))
        pixels = np.asarray(coarse.resize((500, 375)), np.int16)
        noisy = np.clip(pixels + random.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=88)


def write_parquet(files: Path, folder: Path) -> None:
    """Write the same bytes as Parquet, a hundred rows to a row group."""
    paths = sorted(files.glob("*/*.jpg"))
    columns = {
        "image": [path.read_bytes() for path in paths],
        "label": [int(path.parent.name[-1]) for path in paths],
    }
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "train.parquet", row_group_size=100)
    print(f"{sum(map(len, columns['image'])) / len(paths) / 1000:.0f} KB per image")


if __name__ == "__main__":
    main()

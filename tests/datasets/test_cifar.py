"""CIFAR from Parquet and by download: order, sizes, the cache, and what is refused."""

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from PIL import Image

from runtime_pruning import datasets
from runtime_pruning.datasets.cifar import LabelledImages, Sizes
from runtime_pruning.datasets.cifar10 import CIFAR10
from runtime_pruning.errors import DataError


def png(image_CHW: np.ndarray) -> bytes:
    image_HWC = image_CHW.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(image_HWC[..., 0] if len(image_CHW) == 1 else image_HWC).save(file, "PNG")
    return file.getvalue()


def noise(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def write(path: Path, pngs: list[bytes | None], labels: list[int | None]) -> Path:
    columns = {"image": pa.array(pngs, pa.binary()), "label": pa.array(labels, pa.int8())}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pngs = [png(image) for image in noise(7)]
    return write(tmp_path / "some.parquet", [*pngs], [3, 1, 4, 1, 5, 9, 2])


def test_a_file_is_read_in_its_order(parquet: Path, tmp_path: Path) -> None:
    found = CIFAR10.read_parquet(parquet, tmp_path / "cache")
    assert np.array_equal(found.images_NCHW, noise(7))
    assert found.labels_N.tolist() == [3, 1, 4, 1, 5, 9, 2]


def test_what_was_decoded_is_mapped_the_next_time(parquet: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    CIFAR10.read_parquet(parquet, cache)
    (kept,) = cache.iterdir()
    # Other labels in the cache show that the second reading comes from there.
    table = datasets.Split.from_arrays(CIFAR10.info, noise(7), np.arange(7)).table
    with pa.OSFile(str(kept), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    again = CIFAR10.read_parquet(parquet, cache)
    assert again.labels_N.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.array_equal(again.images_NCHW, noise(7))


def test_other_bytes_are_decoded_anew(parquet: Path, tmp_path: Path) -> None:
    CIFAR10.read_parquet(parquet, tmp_path / "cache")
    write(parquet, [png(noise(1)[0])], [6])
    assert CIFAR10.read_parquet(parquet, tmp_path / "cache").labels_N.tolist() == [6]


def test_a_broken_cache_is_replaced(parquet: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    CIFAR10.read_parquet(parquet, cache)
    (kept,) = cache.iterdir()
    size = kept.stat().st_size
    kept.write_bytes(kept.read_bytes()[:100])
    assert np.array_equal(CIFAR10.read_parquet(parquet, cache).images_NCHW, noise(7))
    assert [path.stat().st_size for path in cache.iterdir()] == [size]


def test_a_cache_that_cannot_be_written_does_no_harm(parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(CIFAR10.read_parquet(parquet, tmp_path / "cache").labels_N) == 7


def test_the_training_file_is_cut_in_order() -> None:
    train = LabelledImages(noise(9), np.arange(9))
    test = LabelledImages(noise(2), np.array([8, 9]))
    found = CIFAR10.cut(train, test, Sizes(training=4, policy=3, validation=2, test=2))
    assert [split.labels_N.tolist() for split in found.splits] == [
        [0, 1, 2, 3], [4, 5, 6], [7, 8], [8, 9],
    ]  # fmt: skip
    assert [split.ids_N.tolist() for split in found.splits] == [
        [0, 1, 2, 3], [4, 5, 6], [7, 8], [9, 10],
    ]  # fmt: skip
    assert np.array_equal(found.policy.images_NCHW, train.images_NCHW[4:7])


@pytest.mark.parametrize(("in_train", "in_test", "which"), [(8, 2, "training"), (9, 3, "test")])
def test_a_file_of_another_length_is_refused(in_train: int, in_test: int, which: str) -> None:
    files = [LabelledImages(noise(n), np.arange(n)) for n in (in_train, in_test)]
    with pytest.raises(DataError, match=f"{which} file must hold . images, but got (8|3)"):
        CIFAR10.cut(files[0], files[1], Sizes(4, 3, 2, 2))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10-train\.parquet': no such file"):
        datasets.load("cifar10", tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"hello, I am no Parquet")
    with pytest.raises(DataError, match=r"x\.parquet' must be a whole Parquet file"):
        CIFAR10.read_parquet(tmp_path / "x.parquet", tmp_path / "cache")


def test_a_damaged_parquet_is_named(parquet: Path, tmp_path: Path) -> None:
    content = bytearray(parquet.read_bytes())
    content[4:40] = b"x" * 36  # the first page; the footer, which is read first, stays whole
    parquet.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.parquet' must be a whole Parquet file: ."):
        CIFAR10.read_parquet(parquet, tmp_path / "cache")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1]}, r"must have a column 'image', but has \['label'\]"),
        ({"image": [b"x"]}, r"must have a column 'label', but has \['image'\]"),
        ({"image": ["x"], "label": [1]}, "'image' of .* must be binary .*, but is string"),
        ({"image": [b"x"], "label": ["1"]}, "'label' of .* must be an integer, but is string"),
    ],
)
def test_other_columns_are_refused(
    columns: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=message):
        CIFAR10.read_parquet(tmp_path / "x.parquet", tmp_path / "cache")


GOOD = png(noise(1)[0])


@pytest.mark.parametrize(
    ("pngs", "labels", "message"),
    [
        ([GOOD, b"no picture"], [0, 1], r"Row 1 of x\.parquet must be a PNG"),
        ([GOOD, GOOD[:200]], [0, 1], r"Row 1 of x\.parquet must be a PNG"),
        ([png(noise(1, (3, 8, 8))[0])], [0], r"shape \(3, 32, 32\), but .* \(3, 8, 8\)"),
        ([png(noise(1, (1, 32, 32))[0])], [0], r"shape \(3, 32, 32\), but .* \(1, 32, 32\)"),
        ([GOOD, None], [0, 1], "no empty cell, but got 1"),
        ([GOOD, GOOD], [None, 1], "no empty cell, but got 1"),
        ([GOOD], [10], r"must be in \[0, 9\], but got 10"),
        ([], [], "at least one image"),
    ],
)
def test_bad_rows_are_refused(
    pngs: list[bytes | None], labels: list[int | None], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.parquet", pngs, labels)
    with pytest.raises(DataError, match=message):
        CIFAR10.read_parquet(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "nothing bad may be cached"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_: object) -> None:
        pass


class Origin(NamedTuple):
    """Torchvision's dataset class, pointed at a small archive behind a web server."""

    source: type[torchvision.datasets.CIFAR10]
    archive: Path


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "origin"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tiny_archive(folder, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def tiny_archive(folder: Path, address: str) -> Origin:
    """Write an archive of nine training and two test images in the form of the real one."""

    def batch(name: str, content: dict[str, Any]) -> list[str]:
        path = folder / "cifar-10-batches-py" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))
        return [name, hashlib.md5(path.read_bytes()).hexdigest()]

    train = batch("data_batch_1", {"data": noise(9).reshape(9, -1), "labels": list(range(9))})
    test = batch("test_batch", {"data": noise(2).reshape(2, -1), "labels": [8, 9]})
    names = batch("batches.meta", {"label_names": list(CIFAR10.info.classes)})
    archive = folder / "tiny.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")

    class TinyCIFAR10(torchvision.datasets.CIFAR10):
        url = f"{address}/{archive.name}"
        tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        train_list = [train]  # noqa: RUF012 (torchvision's own form)
        test_list = [test]  # noqa: RUF012
        meta = {"filename": names[0], "md5": names[1], "key": "label_names"}  # noqa: RUF012

    return Origin(TinyCIFAR10, archive)


def test_a_download_is_fetched_once_and_keeps_the_order(origin: Origin, tmp_path: Path) -> None:
    train, test = CIFAR10.download(tmp_path / "cache", origin.source)
    assert np.array_equal(train.images_NCHW, noise(9))
    assert train.labels_N.tolist() == list(range(9))
    assert np.array_equal(test.images_NCHW, noise(2))
    origin.archive.unlink()
    again, _ = CIFAR10.download(tmp_path / "cache", origin.source)
    assert np.array_equal(again.images_NCHW, noise(9))


def test_a_failed_download_says_what_else_would_do(origin: Origin, tmp_path: Path) -> None:
    origin.archive.unlink()
    with pytest.raises(DataError, match=r"could not be downloaded into .* 404.*_PRUNING_DATA"):
        CIFAR10.download(tmp_path / "cache", origin.source)


def test_an_archive_with_another_checksum_is_refused(origin: Origin, tmp_path: Path) -> None:
    origin.source.tgz_md5 = "0" * 32
    with pytest.raises(DataError, match="corrupted"):
        CIFAR10.download(tmp_path / "cache", origin.source)

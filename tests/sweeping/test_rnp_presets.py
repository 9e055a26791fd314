"""The RNP paper's experiments, small: on images that the tests draw, from preset to points."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from runtime_pruning.errors import DataError
from runtime_pruning.frontier.records import read_record
from runtime_pruning.places import Place
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.config import Range
from runtime_pruning.sweeping.prepare import preparation_key, prepare
from runtime_pruning.sweeping.presets import load_preset
from runtime_pruning.sweeping.reports import read_point
from runtime_pruning.sweeping.trial import SweepInputs, run_control

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
NAMES = ("faces", "cifar10-rnp", "cifar100-rnp", "imagenet-vgg16")
SMALL = (
    "trials=1",
    "controls=[dense]",
    "held_out_limit=12",
    "settings.rounds=1",
    "settings.episodes_per_round=16",
    "settings.finetune_images=32",
    "settings.finetune_batch=16",
    "settings.agent.images_per_runner=16",
    "settings.agent.warmup_episodes=16",
    "prepare.anywidth_epochs=1",
    "prepare.limit=32",
    "prepare.batch_size=16",
    "timing.points=0",
)
ALONE = ("resources.env_runner.workers=0", "settings.penalty=0.1", "settings.calibration_batches=1")
FACES = [
    f"{part}/{name}" for part in ("train", "test") for name in ("background", "female", "male")
]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, write_photographs: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    return write_photographs(folder, dict.fromkeys(FACES, 24))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_PRUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a trial's process sets it too


def write_cifar100(folder: Path) -> Path:
    """Write two files of the real ones' length, of flat images in their class's shade."""
    pngs = []
    for shade in range(100):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (2 * shade, 255 - 2 * shade, shade)).save(file, "PNG")
        pngs.append(file.getvalue())
    for name, count in (("train", 50_000), ("test", 10_000)):
        labels = np.arange(count) % 100
        table = pa.table({"image": [pngs[label] for label in labels], "label": labels})
        pq.write_table(table, folder / f"cifar100-{name}.parquet")
    return folder


def write_imagenet(faces: Path, folder: Path) -> Path:
    """Write the same photographs as Parquet, with a validation part and no test part."""
    for part, source in (("train", "train"), ("validation", "test")):
        files = sorted((faces / source).glob("*/*.jpg"))
        columns = {
            "image": [file.read_bytes() for file in files],
            "label": [("background", "female", "male").index(file.parent.name) for file in files],
        }
        pq.write_table(pa.table(columns), folder / f"{part}-00000.parquet", row_group_size=10)
    return folder


def run_small(name: str, data_dir: Path, results: Path, *changes: str) -> Path:
    """Prepare a small sweep and run one trial's method in this process; return its point."""
    sweep = load_preset(name, PRESETS, [*SMALL, *ALONE, *changes])
    material = check_sweep(sweep, data_dir=data_dir)
    prepared = prepare(material, results / "prepared")
    inputs = SweepInputs(
        data=ray.put(material.data),
        network=ray.put(prepared.network),
        dense=ray.put(prepared.dense),
        prepared_key=prepared.key,
        network_effort=prepared.network_effort,
        dense_effort=prepared.dense_effort,
        code_version="test",
        place=Place.at(results),
    )
    points = run_control("rnp", 4, results / "points", sweep=sweep, sweep_id="small", inputs=inputs)
    (point,) = points
    return results / "points" / point


@pytest.mark.ray
@pytest.mark.slow
def test_faces_as_a_user_runs_it(
    faces: Path, frontier: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """With its own two env runners beside each trial."""
    settings = [part for each in SMALL for part in ("--set", each)]
    settings += ["--set", "prepare.pretraining_epochs=1"]
    done = frontier(["--preset", "faces", "--data-dir", str(faces), *settings], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 operating points in" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_vgg16_reads_parquet_and_the_record_gives_macs_by_class(
    faces: Path, tmp_path: Path
) -> None:
    # The preset's own backbone holds 138 M weights, three times over: too much for a test.
    changes = ("backbone=vgg16-cifar", "dataset_settings.image_size=32", "prepare.pretrained=false")
    data_dir = write_imagenet(faces, tmp_path)
    point = run_small("imagenet-vgg16", data_dir, tmp_path, "prepare.pad=2", *changes)
    found, record = read_point(point), read_record(point / "record.parquet")
    assert found.dataset == "image-folder"
    assert len(record.labels_N) == 12
    by_class = [record.executed_macs_N[record.labels_N == label].mean() for label in range(3)]
    assert np.mean(by_class) == pytest.approx(found.executed_macs_per_image)  # four of each
    assert max(by_class) < 1.01 * found.dense_macs


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_cifar100_on_flat_images(tmp_path: Path) -> None:
    point = run_small(
        "cifar100-rnp", write_cifar100(tmp_path), tmp_path, "prepare.pretraining_epochs=0"
    )
    assert read_point(point).groups == 4


def test_cifar10_and_cifar100_differ_in_their_data_only() -> None:
    ten, hundred = (load_preset(name, PRESETS) for name in ("cifar10-rnp", "cifar100-rnp"))
    assert (ten.dataset, hundred.dataset) == ("cifar10", "cifar100")
    assert {**vars(ten), "dataset": ""} == {**vars(hundred), "dataset": ""}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_recalled_of_the_paper_is_kept(name: str) -> None:
    sweep = load_preset(name, PRESETS)
    assert sweep.group_counts == (4,)
    assert sweep.settings["cost"] == "groups"
    penalty = sweep.search["penalty"]
    assert isinstance(penalty, Range)
    assert penalty.low < 0.1 < penalty.high, "the paper's usual penalty"


def test_other_images_under_the_same_names_make_another_network(
    faces: Path, tmp_path: Path, write_photographs: Callable[..., Path]
) -> None:
    other = write_photographs(tmp_path / "other", dict.fromkeys(FACES, 24), (48, 30))
    sweep = load_preset("faces", PRESETS)
    keys = [preparation_key(check_sweep(sweep, data_dir=each)) for each in (faces, other, faces)]
    assert keys[0] == keys[2] != keys[1]


def test_a_preset_without_its_folder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_PRUNING_DATA", raising=False)
    with pytest.raises(DataError, match="'image-folder' needs a folder"):
        check_sweep(load_preset("faces", PRESETS))

"""What one more operating point costs the driver, and the disk, by how many there are already.

    python tests/benchmarks/driver_scaling.py --points 100 400 1000 4000

CPU-seconds of this process, so that other load on the machine hardly matters. Trials have eight
points of 500 images; the store is sqlite. Bundles, whose size is the network's, are left out.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "frontier"))
from synthetic import make_point, make_record

from runtime_pruning.frontier.dominance import (
    Reference,
    hypervolume,
    losses_of,
    pareto_mask,
)
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import Record, write_record
from runtime_pruning.frontier.report import draw_report
from runtime_pruning.frontier.uncertainty import Evidence
from runtime_pruning.sweeping.config import Range, SweepConfig
from runtime_pruning.sweeping.search import FrontierSearch
from runtime_pruning.tracking.mlflow_store import FrontierTracker

POINTS_PER_TRIAL = 8
Sample = list[tuple[OperatingPoint, Record]]


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the CPU-milliseconds that a call takes."""
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)


def sample(count: int) -> Sample:
    """Return points of random cost, eight of each trial."""
    rng = np.random.default_rng(0)
    return [
        make_point(
            float(rng.uniform(0.2, 1.0)),
            penalty=float(rng.uniform(0.1, 9.0)),
            skill=float(rng.uniform(0.8, 1.0)),
            index=number % POINTS_PER_TRIAL,
            seed=number,
        )
        for number in range(count)
    ]


def front_ms(points: Sample) -> float:
    """Return what finding the front and its hypervolume takes."""
    losses_PK = losses_of([point for point, _ in points])
    reference = Reference().losses_K
    return cpu_ms(lambda: (pareto_mask(losses_PK), hypervolume(losses_PK, reference)))


def draw_ms(points: Sample) -> float:
    """Return what drawing page, picture and table takes."""
    measured = [(point, Evidence.of(record)) for point, record in points]
    with tempfile.TemporaryDirectory() as folder:
        return cpu_ms(lambda: draw_report(measured, Path(folder), reference=Reference()))


def suggest_ms(points: Sample) -> float:
    """Return what Optuna's next suggestion takes once the points are known to it."""
    search = FrontierSearch(
        SweepConfig(
            backbone="b",
            dataset="d",
            trials=len(points) // POINTS_PER_TRIAL + 1,
            search={"groups": (2, 4), "penalty": Range(low=0.1, high=9.0, scale="log")},
        )
    )
    for first in range(0, len(points), POINTS_PER_TRIAL):
        trial = str(first)
        search.suggest(trial)
        for index, (point, _) in enumerate(points[first : first + POINTS_PER_TRIAL]):
            told = {"accuracy": point.accuracy, "macs_fraction": point.macs_fraction}
            search.on_trial_result(trial, {**told, "point": index})
        search.on_trial_complete(trial)
    return cpu_ms(lambda: search.suggest("next"))


def log_ms(points: Sample) -> float:
    """Return what writing a point to MLflow takes, mean of all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        tracker = FrontierTracker(uri, "e", "s1", folder / "spool", report_every_s=1e9)
        tracker.start_sweep({})
        tracker.replay()

        def log_all() -> None:
            for point, record in points:
                write_record(record, folder / "record.parquet")
                tracker.log_point(point, folder / "record.parquet")
            tracker.replay()  # waits for the writing thread, whose CPU counts too

        taken = cpu_ms(log_all) / len(points)
        tracker.finish()
        return taken


def record_bytes(images: int) -> int:
    """Return the size of a record of so many images and nine sites."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.parquet"
        write_record(make_record(0.5, images=images), path)
        return path.stat().st_size


def main() -> None:
    """Print a row per number of points, and one per number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=[100, 400, 1000, 4000])
    parser.add_argument("--logged", type=int, default=400, help="most points to write to MLflow")
    arguments = parser.parse_args()
    print("points  front ms  suggest ms  draw ms  log ms")
    for count in arguments.points:
        points = sample(count)
        logged = f"{log_ms(points):6.0f}" if count <= arguments.logged else "     -"
        row = f"{front_ms(points):8.1f}  {suggest_ms(points):10.0f}  {draw_ms(points):7.0f}"
        print(f"{count:6d}  {row}  {logged}", flush=True)
    for images in (1_000, 10_000, 50_000):
        print(f"{images} images: a record of {record_bytes(images) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

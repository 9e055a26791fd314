"""A frontier with all that a page can show, from a seed: for tests and nothing else."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from runtime_pruning.datasets.splits import DatasetInfo, ValidationSplit
from runtime_pruning.frontier.details import Details
from runtime_pruning.frontier.dominance import Reference
from runtime_pruning.frontier.points import OperatingPoint, derive
from runtime_pruning.frontier.proof import Controls, prove
from runtime_pruning.frontier.records import Record
from runtime_pruning.frontier.showing import (
    Extra,
    Extras,
    Setting,
    Tested,
    Thumbnails,
    extreme_ids,
)
from runtime_pruning.frontier.summary import FrontierSummary, summarise
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.frontier.uncertainty import Evidence

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _synthetic() -> ModuleType:
    path = Path(__file__).with_name("synthetic.py")
    spec = importlib.util.spec_from_file_location("synthetic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timing(point: OperatingPoint, batch: int) -> PointTiming:
    ms = 4.0 * batch**0.8 * point.macs_fraction + 0.2
    return PointTiming(
        device="epyc-t1-float32",
        fingerprint={},
        batch=batch,
        images=64,
        mode="ragged",
        kernels="compiled",
        verdict="faster",
        macs_speedup=1 / point.macs_fraction,
        speedup=(0.9 / point.macs_fraction, 0.95 / point.macs_fraction, 1 / point.macs_fraction),
        latency_ms={"p50": ms, "p90": 1.1 * ms, "p95": 1.2 * ms, "p99": 1.5 * ms},
        dense_ms=4.2 * batch**0.8,
    )


def made_sweep(images: int = 500) -> list[tuple[OperatingPoint, Record]]:
    """Points of four methods and the dense network."""
    synthetic = _synthetic()
    made = synthetic.make_sweep(images=images)
    made += [
        synthetic.make_point(share, method="cascade", skill=1.02, penalty=p, images=images)
        for share, p in ((0.35, 0.3), (0.5, 0.2), (0.7, 0.1))
    ]
    made += [synthetic.make_point(0.4, method="magnitude", skill=0.99, images=images)]
    return [*made, synthetic.make_point(1.0, method="dense", skill=1.01, images=images)]


def shown(images: int = 500) -> tuple[FrontierSummary, Extras, Setting]:
    """The sweep with proofs, timings, test figures, details and thumbnails."""
    synthetic = _synthetic()
    made = made_sweep(images)
    proofs = {
        point.point_id: prove(
            record,
            Controls((weak,), (weak,), (weak,)) if i % 2 else Controls(*((record,),) * 3),
            replicates=200,
        )
        for i, (point, record) in enumerate(made[:4])
        for weak in [synthetic.make_record(point.macs_fraction, skill=0.9, images=images)]
    }
    summary = summarise(
        [point for point, _ in made],
        [Evidence.of(record) for _, record in made],
        reference=Reference(),
        proofs=proofs,
        timings={p.point_id: [timing(p, 1), timing(p, 64)] for p, _ in made[:6] + made[-5:]},
        replicates=200,
    )
    extras = {}
    for i, (point, record) in enumerate(made):
        test = synthetic.make_record(
            point.macs_fraction, skill=0.99, images=images, split="test", seed=5
        )
        tested = derive(test, point.provenance)
        extras[point.point_id] = Extra(
            details=Details.of(record),
            tested=Tested.of(tested, Evidence.of(test)) if i % 3 != 1 else None,
            run_path=f"/#/experiments/1/runs/{point.point_id}",
        )
    info = DatasetInfo("cifar10", CLASSES, (3, 32, 32))
    ids_N = np.sort(made[0][1].image_ids_N)
    rng = np.random.default_rng(0)
    split = ValidationSplit.from_arrays(
        info,
        rng.integers(0, 255, (images, 3, 32, 32), np.uint8),
        rng.integers(0, 10, images),
        ids_N,
    )
    wanted = extreme_ids(extra.details for extra in extras.values() if extra.details)
    return summary, extras, Setting(classes=CLASSES, images=Thumbnails(split)(wanted))

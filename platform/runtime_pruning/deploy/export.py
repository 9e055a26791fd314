"""Writing an exported bundle: points of a sweep become a folder that knows all about itself.

Dimensions: N candidates, C channels, H W pixels, K classes.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtime_pruning.cascades.calibration import fit_temperature
from runtime_pruning.deploy.card import CHECK, Card, Interval, Preprocessing, Stop, write_card
from runtime_pruning.deploy.deployed import deploy_bundle
from runtime_pruning.deploy.images import prepare
from runtime_pruning.deploy.reading import AnyBundle, read_bundle
from runtime_pruning.deploy.stops import write_stop
from runtime_pruning.errors import ConfigError
from runtime_pruning.files import save_tensors
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.records import Record
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.frontier.uncertainty import Evidence, interval, resample

CHECKED, CANDIDATES = 8, 64  # images of the stored batch, and of those it is chosen from
REPLICATES = 1000
_TREMBLE = 1e-3  # what a stored image's plan must not depend on, relative


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """One operating point with its evidence.

    Attributes:
        folder: of the bundle that the sweep stored.
        point: of the record's split.
        record: what its figures rest on.
        timings: on all devices that timed it.
    """

    folder: Path
    point: OperatingPoint
    record: Record
    timings: tuple[PointTiming, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all points of an export share.

    Attributes:
        dataset: registered name.
        settings: of the dataset.
        classes: names.
        images_NCHW: of the validation split, uint8, to choose the stored batch from.
        licence: of the weights, as the exporting person states it.
        provenance: beside the point's own.
    """

    dataset: str
    settings: dict[str, Any]
    classes: tuple[str, ...]
    images_NCHW: Any
    licence: str
    provenance: dict[str, Any]


def export_bundle(
    folder: Path, shipments: Sequence[Shipment], chosen: str, origin: Origin, validation: Record
) -> Card:
    """Write an exported bundle.

    Args:
        folder: where to; it must be empty or absent.
        shipments: the exported point, and the others of its dial, all of the same split.
        chosen: id of the exported point.
        origin: what they share.
        validation: the exported point's record of the validation split, to calibrate on.

    Raises:
        ConfigError: the folder holds something.
    """
    refuse_filled(folder)
    ordered = sorted(shipments, key=lambda each: each.point.executed_macs_per_image)
    ids = [each.point.point_id for each in ordered]
    place = ids.index(chosen)
    base = ordered[place].folder
    copytree(base, folder, dirs_exist_ok=True)
    places = ["." if id_ == chosen else f"stops/{id_}" for id_ in ids]
    for shipment, name in zip(ordered, places, strict=True):
        if name != ".":
            write_stop(shipment.folder, base, folder / name)
    bundle = read_bundle(folder)
    settings = origin.settings
    how = Preprocessing(image_shape=bundle.image_shape, fit=settings.get("fit", "crop"))
    card = Card(
        dataset=origin.dataset,
        dataset_settings=json.loads(json.dumps(settings)),
        classes=origin.classes,
        preprocessing=how,
        temperature=temperature_of(validation),
        dense_macs=ordered[place].point.dense_macs,
        chosen=place,
        stops=_stops(ordered, places),
        licence={"code": "Apache-2.0", "weights": origin.licence},
        provenance={
            **json.loads(ordered[place].point.to_json()),
            **origin.provenance,
            **_versions(),
        },
    )
    _write_check(folder, bundle, prepare(np.array(origin.images_NCHW[:CANDIDATES]), how))
    write_card(folder, card)
    return card


def refuse_filled(folder: Path) -> None:
    """Refuse to write among other files.

    Raises:
        ConfigError: names the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"The folder of a new bundle must be empty, but {str(folder)!r} is not.")


def temperature_of(record: Record) -> float:
    """Return the temperature that calibrates a point's probabilities, 1 where it is not known.

    It is not for networks of so many classes that a record keeps the likeliest only.
    """
    answers = record.answers
    if answers is None or answers.kept < answers.num_classes:
        return 1.0
    return fit_temperature(record.log_probabilities_NA, record.labels_N)


def _stops(shipments: Sequence[Shipment], places: Sequence[str]) -> tuple[Stop, ...]:
    """Return what is expected of each point, with intervals from one bootstrap of all."""
    draws = resample(
        [Evidence.of(each.record) for each in shipments],
        replicates=REPLICATES,
        rng=np.random.default_rng(0),
    )
    accuracy, macs = interval(draws.accuracy_RP), interval(draws.macs_RP)

    def within(ends: Any, p: int, value: float) -> Interval:
        return (min(float(ends.low_P[p]), value), value, max(float(ends.high_P[p]), value))

    return tuple(
        Stop(
            folder=place,
            point_id=each.point.point_id,
            split=each.point.split,
            images=len(each.record),
            accuracy=within(accuracy, p, each.point.accuracy),
            macs_per_image=within(macs, p, each.point.executed_macs_per_image),
            macs_quantiles={
                name: getattr(each.point.figures, f"executed_macs_{name}")
                for name in ("p50", "p90", "p99")
            },
            penalty=each.point.penalty,
            timings=tuple(json.loads(json.dumps(asdict(timing))) for timing in each.timings),
        )
        for p, (each, place) in enumerate(zip(shipments, places, strict=True))
    )


def _versions() -> dict[str, str]:
    return {
        "runtime_pruning": version("runtime-pruning"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _write_check(folder: Path, bundle: AnyBundle, images_NCHW: Tensor) -> None:
    """Store a batch with its answers: images whose plan does not hang on the last bit."""
    deployed = deploy_bundle(bundle)
    found = deployed.execute(images_NCHW)
    nudged = deployed.execute(images_NCHW * (1 - _TREMBLE))
    steady_N = found.total_macs_B == nudged.total_macs_B
    rows = steady_N.nonzero()[:CHECKED, 0] if steady_N.any() else torch.arange(1)
    chosen = deployed.execute(images_NCHW[rows])
    stored = {
        "images_BCHW": (images_NCHW[rows] * 255).round().to(torch.uint8),
        "logits_BK": chosen.logits_BK.float(),
        "macs_B": chosen.total_macs_B,
    }
    save_tensors(stored, folder / CHECK)


def timed(shipment: Shipment, timing: PointTiming) -> Shipment:
    """Return a shipment with one more timing."""
    return replace(shipment, timings=(*shipment.timings, timing))

"""What is shown of points beside their figures, and of the images that they were measured on."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime_pruning.datasets import Split
from runtime_pruning.frontier.choosing import Candidate
from runtime_pruning.frontier.details import Details, class_loss
from runtime_pruning.frontier.points import Figures, OperatingPoint
from runtime_pruning.frontier.summary import DENSE
from runtime_pruning.frontier.timings import PointTiming
from runtime_pruning.frontier.uncertainty import Evidence, interval, resample

_THUMBNAIL = 64  # pixels


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What a point that was chosen on validation does to the test split.

    Attributes:
        figures: read off its record there.
        low, high: interval of its accuracy.
    """

    figures: Figures
    low: float
    high: float

    @classmethod
    def of(cls, point: OperatingPoint, evidence: Evidence, level: float = 0.95) -> "Tested":
        """Return a point of the test split, with the interval that its record gives."""
        redrawn = resample([evidence], replicates=1000, rng=np.random.default_rng(0))
        ends = interval(redrawn.accuracy_RP, level)
        return cls(figures=point.figures, low=float(ends.low_P[0]), high=float(ends.high_P[0]))


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What a page shows of one point, where it is known.

    Attributes:
        details: counts of its record on validation.
        tested: the point on the test split.
        run_path: address of its MLflow run behind the server's: ``/#/experiments/...``.
        predicted_ms: by ``predicted:<device>.<batch>.<mean or quantile>``, from a latency table.
    """

    details: Details | None = None
    tested: Tested | None = None
    run_path: str | None = None
    predicted_ms: Mapping[str, float] = field(default_factory=dict)


# By the id of the point.
Extras = Mapping[str, Extra]


@dataclass(frozen=True, kw_only=True)
class Live:
    """How a page learns of what is newer while a sweep runs.

    Attributes:
        beside: name of the script beside the page that holds the newest data.
        every_s: seconds between two readings of it.
        ended: nothing newer will come; pages that are open are told so.
    """

    beside: str
    every_s: float
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a page knows of the world around its points.

    Attributes:
        server: of MLflow, for the links to runs.
        server_hint: how to start it, where it may not be running.
        classes: names of the labels.
        images: small pictures by image id, as addresses that hold their data.
        live: None for a page that stays as it is.
    """

    server: str = "http://127.0.0.1:5000"
    server_hint: str = "while runtime-pruning ui runs"
    classes: tuple[str, ...] = ()
    images: Mapping[int, str] = field(default_factory=dict)
    live: Live | None = None


def latency_ms(timings: Sequence[PointTiming]) -> dict[str, float]:
    """Return a point's milliseconds by ``<device>.<batch>.<quantile>``."""
    return {
        f"{timing.device}.{timing.batch}.{quantile}": ms
        for timing in timings
        for quantile, ms in (timing.latency_ms or {}).items()
    }


def candidates_of(
    points: Iterable[OperatingPoint],
    details: Mapping[str, Details],
    milliseconds: Mapping[str, Mapping[str, float]],
) -> list[Candidate]:
    """Return points as a chooser takes them.

    A class's loss is counted from the dense network of the point's backbone.

    Args:
        points: on the same images.
        details: by point id; without those of a dense network no class's loss is known.
        milliseconds: by point id, then by ``<device>.<batch>.<quantile>``.
    """
    points = list(points)
    dense = {
        p.backbone: details[p.point_id]
        for p in points
        if p.method == DENSE and p.point_id in details
    }
    return [
        Candidate(
            point_id=point.point_id,
            method=point.method,
            backbone=point.backbone,
            accuracy=point.accuracy,
            macs_fraction=point.macs_fraction,
            class_loss=_loss(details.get(point.point_id), dense.get(point.backbone)),
            latency_ms=dict(milliseconds.get(point.point_id, {})),
        )
        for point in points
    ]


def _loss(details: Details | None, dense: Details | None) -> float | None:
    return None if details is None or dense is None else class_loss(details, dense)


def extreme_ids(details: Iterable[Details]) -> set[int]:
    """Return the images that some point spends least or most on."""
    return {spent.image_id for each in details for spent in (*each.least, *each.most)}


class Thumbnails:
    """Images of a split as PNGs of at most 64 pixels a side, in ``data:`` addresses.

    Args:
        split: that points were measured on; an image is read when it is first asked for.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._made: dict[int, str] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self._split.info.classes

    def __call__(self, image_ids: Iterable[int]) -> dict[int, str]:
        """Return pictures by image id; ids that the split does not hold are left out."""
        wanted = set(image_ids)
        rows = np.flatnonzero(np.isin(self._split.ids_N, list(wanted - self._made.keys())))
        ids = self._split.ids_N[rows].tolist()
        for id_, pixels_CHW in zip(ids, self._split.images_NCHW[rows], strict=True):
            self._made[id_] = _png(pixels_CHW)
        return {id_: self._made[id_] for id_ in sorted(wanted & self._made.keys())}


def _png(pixels_CHW: npt.NDArray[np.uint8]) -> str:
    colour = pixels_CHW.transpose(1, 2, 0) if len(pixels_CHW) == 3 else pixels_CHW[0]
    image, buffer = Image.fromarray(np.ascontiguousarray(colour)), io.BytesIO()
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

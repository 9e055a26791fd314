"""The card of an exported operating point: all that its network and policy do not say themselves.

``card.json`` lies beside the bundle's manifest. It names classes and dataset, how pixels are
prepared, what accuracy and cost to expect with 95 % intervals, how fast the point was on which
device, where it came from and under which licence, and a checksum of every other file. A point that
is exported with others of its sweep has a *dial*: each of them is a *stop* of it.

Dimensions: C channels, H W pixels.
"""

from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

from runtime_pruning.config import Count, NotNegative, Positive, Share, build_config, config_class
from runtime_pruning.deploy.sealed import check_files, read_sealed, sha256_of, write_sealed
from runtime_pruning.errors import ConfigError, DataError
from runtime_pruning.frontier.timings import PointTiming

CARD, CHECK = "card.json", "check.safetensors"
CARD_SCHEMA = 1

Interval = tuple[float, float, float]
"""Low end, value and high end."""


@config_class
class Preprocessing:
    """From a person's image to what the network takes, as the dataset had it.

    Attributes:
        image_shape: C, H and W of the network's input, float32 in [0, 1]; normalisation is inside
            the network.
        fit: how an image of another shape becomes square; see `datasets.decoding`.
        colour: of three channels, or of one.
    """

    image_shape: tuple[int, int, int]
    fit: Literal["crop", "stretch"] = "crop"

    @property
    def colour(self) -> Literal["RGB", "grey"]:
        """What the channels are."""
        return "grey" if self.image_shape[0] == 1 else "RGB"


@config_class
class Stop:
    """One operating point that a bundle can run: what is expected of it.

    Attributes:
        folder: of its files, below the bundle's; ``"."`` is the bundle's own.
        point_id: see `OperatingPoint`.
        split: of the images that the figures rest on.
        images: how many these are.
        accuracy: in [0, 1], with its interval.
        macs_per_image: mean of the executed MACs, the policy's included, with its interval.
        macs_quantiles: of single images, by name: ``p50``, ``p90``, ``p99``.
        penalty: that the policy was told; None where it has none.
        timings: facts of `PointTiming`, one per device and size of batch.
    """

    folder: str
    point_id: str
    split: Literal["validation", "test"]
    images: Count
    accuracy: tuple[Share, Share, Share]
    macs_per_image: tuple[Positive, Positive, Positive]
    macs_quantiles: dict[str, NotNegative]
    penalty: NotNegative | None = None
    timings: tuple[dict[str, Any], ...] = ()

    def latency_ms(self, device: str, batch: int = 1) -> float | None:
        """Return the median of one call on a device, in ms, if it was timed there."""
        for facts in self.timings:
            timing = PointTiming.from_facts(facts)
            if (timing.device, timing.batch) == (device, batch) and timing.latency_ms is not None:
                return timing.latency_ms["p50"]
        return None


@config_class
class Card:
    """What an exported point's card says.

    Attributes:
        dataset: registered name of what it was trained and measured on.
        dataset_settings: of that dataset.
        classes: names; logit k is of the k-th.
        preprocessing: of images.
        temperature: that logits are divided by before they become probabilities.
        dense_macs: MACs of the unpruned backbone on one image.
        chosen: which stop is the exported point.
        stops: by ascending cost.
        licence: of code and weights.
        provenance: the point's own facts, and versions.
    """

    dataset: str
    dataset_settings: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: Positive
    dense_macs: Count
    chosen: int
    stops: tuple[Stop, ...]
    licence: dict[str, str]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        costs = [stop.macs_per_image[1] for stop in self.stops]
        if costs != sorted(costs) or not 0 <= self.chosen < len(costs):
            raise ValueError(
                "Stops must come by ascending cost, the chosen one among them, but got "
                f"{costs} and {self.chosen}."
            )

    @property
    def stop(self) -> Stop:
        """The exported point."""
        return self.stops[self.chosen]


def write_card(folder: Path, card: Card) -> None:
    """Write a card over all other files of a folder."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / CARD
    )
    files = {name: sha256_of(folder / name) for name in names}
    write_sealed(folder / CARD, {"schema": CARD_SCHEMA, **asdict(card), "files": files})


def read_card(folder: Path) -> Card:
    """Return a bundle's card, all files verified.

    Raises:
        DataError: no card, one of another version, or a file that has changed since.
    """
    if (folder / "manifest.json").is_file() and not (folder / CARD).is_file():
        raise DataError(
            f"{str(folder)!r} is the bundle of a sweep's point, which knows neither classes nor "
            "preprocessing: make one that does by `runtime-pruning export`."
        )
    facts = read_sealed(folder / CARD, schema=CARD_SCHEMA, what="An exported bundle")
    facts.pop("schema")
    check_files(folder, facts.pop("files"))
    try:
        return build_config(Card, facts, where="The bundle's card")
    except ConfigError as error:
        raise DataError(str(error)) from error

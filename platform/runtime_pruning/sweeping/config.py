"""What a sweep is made of, checked before Ray starts."""

import math
from dataclasses import field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from runtime_pruning.config import Count, CountOrNone, Positive, config_class
from runtime_pruning.errors import ConfigError
from runtime_pruning.network.trainer import Precision, Schedule, TrainConfig
from runtime_pruning.resources import Resources


@config_class
class Range:
    """A continuous or whole-numbered search dimension, ``low <= x <= high``."""

    low: float
    high: float
    scale: Literal["log", "linear"] = "linear"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"`low` and `high` must be finite, but got {self.low}, {self.high}.")
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got low={self.low}, high={self.high}.")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"`low > 0` must hold on a log scale, but got {self.low}.")

    @property
    def ends(self) -> tuple[float, ...]:
        """The values to check a setting's rule at."""
        return (self.low, self.high)


Dimension = Range | tuple[float | str, ...]


@config_class
class PrepareConfig:
    """How the backbone that all trials start from is made.

    Attributes:
        pretrained: start from the family's published weights rather than from chance.
        pretraining_epochs: passes over the training split at full width, first.
        anywidth_epochs: passes in which full, smallest and random plans learn together.
        reference_epochs: passes of the dense network that losses of accuracy are counted from, at
            full width from the start; None takes the one that any-width training begins with, which
            is trained for fewer passes than what it is held against.
        lr: peak learning rate of pretraining.
        anywidth_lr: peak learning rate of the any-width passes; None is that of pretraining.
        limit: learn from this many training images only; None learns from all.
        seed: of initial weights and training; None is the sweep's. Sweeps of several seeds that
            name one here share one prepared network.

    The others are `TrainConfig`'s, of the same names and rules.
    """

    pretrained: bool = False
    pretraining_epochs: CountOrNone = 0
    anywidth_epochs: CountOrNone = 10
    reference_epochs: Count | None = None
    batch_size: int = 128
    lr: float = 0.1
    anywidth_lr: Positive | None = None
    schedule: Schedule = "one-cycle"
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    random_plans: int = 2
    distillation: float = 1.0
    temperature: float = 1.0
    precision: Precision = "auto"
    channels_last: bool = True
    pad: int = 4
    flip: bool = True
    limit: Count | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        self.pretraining(seed=0), self.anywidth(seed=0)  # they refuse the rest
        if self.pretrained and self.reference_epochs is not None:
            raise ValueError(
                "`reference_epochs` must be absent where weights are `pretrained`: the published "
                f"network is the reference, but got {self.reference_epochs}."
            )

    def pretraining(self, *, seed: int) -> TrainConfig:
        """Return how the full width is trained; nothing in it depends on any-width settings."""
        return TrainConfig(
            epochs=self.pretraining_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            precision=self.precision,
            channels_last=self.channels_last,
            pad=self.pad,
            flip=self.flip,
            any_width=False,
            seed=seed,
        )

    def anywidth(self, *, seed: int) -> TrainConfig:
        """Return how all widths are trained together."""
        return replace(
            self.pretraining(seed=seed),
            epochs=self.anywidth_epochs,
            lr=self.lr if self.anywidth_lr is None else self.anywidth_lr,
            any_width=True,
            random_plans=self.random_plans,
            distillation=self.distillation,
            temperature=self.temperature,
        )


@config_class
class ProofConfig:
    """How points are tried for whether their decisions depend on the image.

    Attributes:
        points: of the swept method, at most, those on the front first; 0 turns the proof off.
        seeds: how often plans are shuffled, and drawn at random.
        search_evaluations: fixed plans that are judged beyond the starting ones.
        search_images: of the policy split, that judge a fixed plan; the best few are judged on all.
        calibration_batches: batches of 256 training images over which batch-norm statistics are
            taken anew for a fixed plan; None gives it as many as the policy had.
        oracle_images: sample of held-out images for the upper bound; 0 leaves it out.
    """

    points: CountOrNone = 3
    seeds: Count = 3
    search_evaluations: CountOrNone = 32
    search_images: Count = 2000
    calibration_batches: CountOrNone | None = None
    oracle_images: CountOrNone = 200


@config_class
class TimingConfig:
    """How points are timed, after the trials: the front, the method's own front, and dense.

    Attributes:
        points: at most, spread over the cost; None times all that are reported, 0 none.
        batches: images per call, each size for itself.
        images: of the validation split, that each timing runs.
        rounds: of each comparison with dense.
        attempts: how often a timing whose clock could not be believed is taken.
        dtype: of weights and features.
    """

    points: CountOrNone | None = None
    batches: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 64)
    images: Count = 128
    rounds: Annotated[int, Field(ge=10)] = 10
    attempts: Count = 3
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if max(self.batches) > self.images:
            raise ValueError(
                f"`batches <= images` must hold, but got {max(self.batches)} and {self.images}."
            )


Objective = Literal["accuracy", "macs", "latency"]


@config_class
class EarlyStopping:
    """When a trial is held against others, and stopped if it has fallen behind.

    Attributes:
        effort: what rungs are counted in; epochs include those of the preparation.
        first: effort of the first rung.
        factor: of each rung's effort over the one before.
        keep: share of the trials at a rung that go on.
    """

    effort: Literal["env_steps", "epochs"] = "env_steps"
    first: Positive
    factor: Annotated[float, Field(gt=1)] = 2.0
    keep: Annotated[float, Field(gt=0, le=1)] = 0.5


@config_class
class SweepConfig:
    """One sweep: a method on a backbone and a dataset, searched over a space.

    Attributes:
        backbone, dataset, method: registered names.
        dataset_settings: of the dataset, such as ``image_size`` of ``image-folder``.
        controls: methods without a search that run once per group count beside the sweep.
        trials: how many configurations Optuna suggests.
        objectives: that Optuna trades against each other: ``accuracy``, and ``macs``, ``latency``
            (CPU time on the trial's node) or both.
        seed: of the search, every trial, and the preparation unless that names its own.
        seeds: each configuration is tried under each of these, all from one preparation, and is
            chosen and told by the mean; none tries it once, under ``seed``.
        align: channel bounds of groups are multiples of this where the site is wide enough.
        streams: whether convolutions that end in a residual add are sites, see `trace`.
        search: dimensions by name; ``groups`` or settings of the method.
        settings: the method's settings that are not searched.
        early_stopping: when trials that fall behind are stopped; None lets each run to its end.
        exam: read the test split at the sweep's end: of the front, the method's own front and the
            fixed points. Without it, ``runtime-pruning exam`` does, once all is chosen.
        plugins: modules that are imported before names are looked up, here and on every worker.
        eval_batch: images per batch when a point is measured.
        held_out_limit: measure points on this many held-out images only; None measures on all.
    """

    backbone: str
    dataset: str
    dataset_settings: dict[str, Any] = field(default_factory=dict)
    method: str = "rnp"
    controls: tuple[str, ...] = ("dense", "fixed-width")
    trials: Count = 6
    seed: int = 0
    seeds: tuple[int, ...] = ()
    align: Count = 8
    streams: bool = True
    search: dict[str, Dimension]
    objectives: tuple[Objective, ...] = ("accuracy", "macs")
    settings: dict[str, Any] = field(default_factory=dict)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    resources: Resources = field(default_factory=Resources)
    proof: ProofConfig = field(default_factory=ProofConfig)
    timing: TimingConfig = field(default_factory=TimingConfig)
    early_stopping: EarlyStopping | None = None
    exam: bool = False
    plugins: tuple[str, ...] = ()
    eval_batch: Count = 256
    held_out_limit: Count | None = None

    def __post_init__(self) -> None:
        costs = [name for name in self.objectives if name != "accuracy"]
        twice = len(set(self.objectives)) < len(self.objectives)
        if twice or not costs or "accuracy" not in self.objectives:
            raise ValueError(
                "`objectives` must name accuracy and a cost, each once, but got "
                f"{list(self.objectives)}."
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must be different, but got {list(self.seeds)}.")
        if len(self.seeds) > 1 and self.early_stopping is not None:
            raise ValueError(
                "`early_stopping` must be absent where there are several `seeds`, which end "
                f"together, but got {list(self.seeds)}."
            )
        if "groups" not in self.search:
            raise ValueError("`search` must name the group counts: `groups: [2, 4]`.")
        for name, dimension in self.search.items():
            if isinstance(dimension, tuple) and not dimension:
                raise ValueError(f"`search.{name}` must offer at least one value, but got [].")

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """The seeds that each configuration is tried under."""
        return self.seeds or (self.seed,)

    @property
    def prepare_seed(self) -> int:
        """The seed of the preparation."""
        return self.seed if self.prepare.seed is None else self.prepare.seed

    @property
    def group_counts(self) -> tuple[int, ...]:
        """The group counts that trials may use, ascending.

        Raises:
            ConfigError: they are not given as a list of whole numbers, each at least 2.
        """
        dimension = self.search["groups"]
        if isinstance(dimension, Range) or not all(_is_count(g) for g in dimension):
            raise ConfigError(
                f"`search.groups` must be a list of whole numbers >= 2, but got {dimension}."
            )
        return tuple(sorted(int(g) for g in dimension))


def _is_count(value: float | str) -> bool:
    """Whether a value is a whole number of groups."""
    return not isinstance(value, str) and value == int(value) and value >= 2

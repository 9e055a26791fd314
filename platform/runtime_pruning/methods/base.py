"""What a method is given, what it gives back, and where it is filed."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from runtime_pruning.config import CountOrNone, config_class
from runtime_pruning.curves import Curves
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.frontier.records import Record
from runtime_pruning.network import PrunableNetwork
from runtime_pruning.network.policies import Policy
from runtime_pruning.registry import Registry
from runtime_pruning.resources import AgentResources

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What it has cost to train a policy and its network, the preparation included.

    Attributes:
        env_steps: decisions that an agent took while it learned.
        epochs: passes of the network's training over the whole training split.
        train_seconds: time that both took.
    """

    env_steps: int = 0
    epochs: float = 0.0
    train_seconds: float = 0.0

    def __add__(self, other: "Effort") -> "Effort":
        """Return what both have cost together."""
        return Effort(
            env_steps=self.env_steps + other.env_steps,
            epochs=self.epochs + other.epochs,
            train_seconds=self.train_seconds + other.train_seconds,
        )


@config_class
class CalibratedConfig:
    """Settings of a method that learns nothing but batch-norm statistics.

    Attributes:
        calibration_batches: batches of 256 training images over which they are taken anew under
            each policy; 0 leaves those of the prepared network.
    """

    calibration_batches: CountOrNone = 8


@dataclass(frozen=True, kw_only=True)
class KnownPoint:
    """An operating point whose facts are known, whatever ran to find them.

    Attributes:
        validation, policy: its records of these splits, answers kept.
        groups: channel groups per site.
        write_bundle: writes what runs the point into a folder.
        penalty: reward lost per unit of cost; None where the point has none.
        analytic_macs_per_image: mean computed cost on validation; None takes the executed one.
    """

    validation: Record
    policy: Record
    groups: int
    write_bundle: Callable[[Path], None]
    penalty: float | None = None
    analytic_macs_per_image: float | None = None


class Report(Protocol):
    """Measures a policy on held-out images and records the operating point."""

    def __call__(
        self,
        policy: Policy,
        network: PrunableNetwork,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Record one point; ``save_state`` writes what `Task.resume` later reads."""

    def measure(self, policy: Policy, network: PrunableNetwork) -> KnownPoint:
        """Return a policy's facts and record nothing: a point may be made of several.

        The method's choices rest on the records of the policy split. ``network`` must not change
        any more.
        """

    def known(
        self,
        point: KnownPoint,
        effort: Effort,
        *,
        save_state: Callable[[Path], None] | None = None,
    ) -> None:
        """Record a point whose facts are known."""

    def infeasible(self, reason: str) -> None:
        """Say that a point which was asked for does not exist, and why.

        A method that cannot keep to its budgets reports no point in place of one beyond them.
        """


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trial's material.

    Attributes:
        network: the prepared network, already in the trial's group count; the method's to change.
        dense: the same backbone as it was before any-width training.
        network_effort, dense_effort: what their preparation has cost; a method adds its own.
        backbone: registered name of what both networks are.
        work: a folder of the trial's own that outlives an interruption, created by whoever writes
            to it: for checkpoints between points. None: nothing is kept between them.
        shared: what `Method.prepare` returned.
        control_points: folders of the points of the sweep's controls, those that there are.
        data: the four splits. A method learns from ``training`` and ``policy`` and never reads the
            held-out ones: measuring is the report's.
        data_ref: the same data as a reference into Ray's object store, for worker processes.
        seed: of everything random in the trial.
        pad, flip: the augmentation that the backbone was trained with.
        resources: what an agent in training may ask for.
        points_done: operating points that an earlier, interrupted run of the trial has recorded.
        resume: the folder that this run's ``save_state`` wrote with the last of them.
        curves: takes what training reads of itself; what it holds goes with the next point.
    """

    network: PrunableNetwork
    dense: PrunableNetwork
    data: ImageDataset
    data_ref: Any
    seed: int
    pad: int = 0
    flip: bool = False
    resources: AgentResources = field(default_factory=AgentResources)
    points_done: int = 0
    resume: Path | None = None
    curves: Curves = field(default_factory=Curves)
    network_effort: Effort = field(default_factory=Effort)
    dense_effort: Effort = field(default_factory=Effort)
    backbone: str = ""
    work: Path | None = None
    shared: Any = None
    control_points: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a method may look for what its trials share, on the driver.

    Attributes:
        data: the four splits.
        folder: of the sweep, on storage that all nodes see.
        store: the MLflow store, as `open_store` takes it.
        weights_dir: folder of published weights; None asks the environment.
    """

    data: ImageDataset
    folder: Path
    store: str
    weights_dir: Path | None = None


class Method(abc.ABC, Generic[ConfigT]):
    """Turns a task into operating points.

    Attributes:
        config_type: the frozen dataclass of the method's settings; it refuses bad values.
        trains_agent: whether it starts the env runners and learners of ``task.resources``.
        plans_groups: whether its points are plans of group counts, which a proof deals to other
            images and searches.
    """

    config_type: ClassVar[type[Any]]
    trains_agent: ClassVar[bool] = False
    plans_groups: ClassVar[bool] = True

    @classmethod
    def prepare(cls, config: ConfigT, sources: Sources) -> Any:
        """Return what all trials share and only the driver can find; None where there is nothing.

        It runs before hours of preparation: what is missing is refused here.
        """
        return None

    def points_per_stage(self, config: ConfigT) -> int:
        """Return how many points it reports after each stage of training."""
        return 1

    def budgets(self, config: ConfigT) -> Mapping[str, float]:
        """Return the most that a point may cost under these settings.

        Fractions of the dense network's costs, by their names in `runtime_pruning.cost.whole`;
        empty where nothing is promised.
        """
        return {}

    @abc.abstractmethod
    def fit(self, task: Task, config: ConfigT, report: Report) -> None:
        """Train, and call ``report`` for each operating point as soon as there is one."""


_METHODS: Registry[type[Method[Any]]] = Registry("method", "runtime_pruning.methods")

register = _METHODS.register
get = _METHODS.get


def names() -> list[str]:
    """Return the names of all known methods."""
    return sorted(_METHODS)

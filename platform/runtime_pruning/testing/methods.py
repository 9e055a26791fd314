"""The contract of a method: what is reported is what was measured, within what was promised.

`try_method` tries the clauses one by one and says why one fails; `check-method` prints them. A
method that is killed is killed here by an exception that nothing catches, at the moment of a
report: before the point is recorded, and after it.

In a test file of the plugin::

    from runtime_pruning.testing.methods import MethodContract

    class TestMyMethod(MethodContract):
        method_name = "my-method"
        settings = {"budget": 0.5}
"""

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from runtime_pruning import backbones, datasets, methods
from runtime_pruning.config import build_config
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.cost.whole import network_cost
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.errors import ContractError, RuntimePruningError
from runtime_pruning.methods import Method, Task
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.testing.contract import Clause
from runtime_pruning.testing.recorder import Killed, RecordedPoint, Recorder
from runtime_pruning.testing.sealed import sealed

_ALIKE = 1e-6  # of a mean of MACs: how far two sums of whole numbers may be apart
_TIMED = 0.1  # of a budget: how far a measured time may be off

RUNS = "it runs with its settings, and reads no held-out image"
SPEAKS = "it reports a point, or says why there is none"
AGREES = "its records agree with what it claims"
KEEPS = "its points keep to its budgets"
AFRESH = "killed before its first point is recorded, it runs again"
GOES_ON = "killed after a point, it goes on with the next one"
ENDS = "with all points recorded, it reports nothing more"


@dataclass(frozen=True)
class MethodScorecard:
    """Each promise of a method, kept or broken.

    Attributes:
        method: its name.
        clauses: all promises, in the order in which they are tried.
        points: that it reported.
        infeasible: why it reported no more of them.
    """

    method: str
    clauses: tuple[Clause, ...]
    points: int
    infeasible: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every promise is kept."""
        return all(clause.passed for clause in self.clauses)

    def __str__(self) -> str:
        kept = sum(clause.passed is True for clause in self.clauses)
        told = [f"no feasible point: {reason}" for reason in self.infeasible]
        points = f"{self.points} {'point' if self.points == 1 else 'points'} reported"
        score = f"{kept} of {len(self.clauses)} clauses passed"
        return "\n".join([self.method, *map(str, self.clauses), "", points, *told, score])


@dataclass(frozen=True)
class Subject:
    """What a method is tried on.

    Attributes:
        data: the four splits; the method gets them with the held-out ones sealed.
        network: traced, as a preparation would hand it on.
        backbone: its registered name.
    """

    data: ImageDataset
    network: PrunableNetwork
    backbone: str

    @staticmethod
    def make(dataset: str = "digits", backbone: str = "digits-cnn", groups: int = 2) -> "Subject":
        """Return a subject by names, its weights drawn at random."""
        data = datasets.load(dataset)
        shape = data.info.image_shape
        plain = backbones.create(backbone, num_classes=len(data.info.classes), image_shape=shape)
        return Subject(data, trace(plain, shape, groups=groups), backbone)


def try_method(
    name: str, settings: Mapping[str, Any] | None = None, *, subject: Subject | None = None
) -> MethodScorecard:
    """Return the scorecard of a registered method.

    A method that trains an agent needs Ray to be running.

    Args:
        name: of the method.
        settings: of the method; small ones, since it runs four times.
        subject: what it is tried on: a small network on digits by default.

    Raises:
        UnknownNameError: nobody registered the name.
        ConfigError: settings that the method refuses.
    """
    method = methods.get(name)
    config = build_config(method.config_type, dict(settings or {}), where=f"Method {name!r}")
    with tempfile.TemporaryDirectory(prefix="method-") as folder:
        trial = _Trial(method, config, subject or Subject.make(), Path(folder))
        clauses: list[Clause] = []
        for promise, check in PROMISES.items():
            if promise != RUNS and not clauses[0].passed:
                clauses.append(Clause(promise, None))
                continue
            clauses.append(_tried(promise, partial(check, trial)))
    whole = trial.whole if clauses[0].passed else Recorder(trial.subject.data, trial.folder)
    return MethodScorecard(name, tuple(clauses), len(whole.points), tuple(whole.reasons))


def _tried(promise: str, check: Callable[[], None]) -> Clause:
    """Return the clause of a promise."""
    try:
        check()
    except Exception as error:  # of any kind: the method is foreign code
        told = str(error) or type(error).__name__
        known = isinstance(error, RuntimePruningError | AssertionError)
        return Clause(promise, False, told if known else f"{type(error).__name__}: {told}")
    return Clause(promise, True)


@dataclass(frozen=True)
class _Trial:
    """One method on one subject.

    Attributes:
        method: its class.
        config: its settings.
        subject: what it is tried on.
        folder: for what is kept between runs.
    """

    method: type[Method[Any]]
    config: Any
    subject: Subject
    folder: Path

    @cached_property
    def whole(self) -> Recorder:
        """What an uninterrupted run reported."""
        return self.run("whole")

    def run(
        self,
        name: str,
        *,
        kill_at: int | None = None,
        recorded: bool = True,
        after: Recorder | None = None,
    ) -> Recorder:
        """Return what a run reported, up to the moment that it was killed.

        Args:
            name: of the trial: runs of one name share their working folder.
            kill_at: see `Recorder`.
            recorded: see `Recorder`.
            after: an earlier run of the trial, whose points are recorded.
        """
        done = 0 if after is None else len(after.points)
        report = Recorder(self.subject.data, self.folder / f"{name}-{done}", kill_at, recorded)
        network = self.subject.network
        data = sealed(self.subject.data)
        task = Task(
            network=copy.deepcopy(network),
            dense=copy.deepcopy(network),
            data=data,
            data_ref=_reference(data),
            seed=0,
            backbone=self.subject.backbone,
            work=self.folder / "work" / name,
            points_done=done,
            resume=None if after is None else after.state,
        )
        with suppress(Killed):
            self.method().fit(task, self.config, report)
        return report


def _reference(data: ImageDataset) -> Any:
    """Return the data in Ray's object store; None where Ray does not run."""
    import ray  # which methods that train no agent do without

    return ray.put(data) if ray.is_initialized() else None


# The promises


def _runs(trial: _Trial) -> None:
    """The held-out splits are sealed: what reads them raises."""
    _ = trial.whole


def _speaks(trial: _Trial) -> None:
    if not trial.whole.points and not trial.whole.reasons:
        raise ContractError(
            "It reported no point and gave no reason: `report.infeasible` takes one."
        )


def _agrees(trial: _Trial) -> None:
    validation = trial.subject.data.validation
    for index, point in enumerate(trial.whole.points):
        record = point.validation
        if record.split != "validation":
            raise ContractError(f"Point {index} has a record of the {record.split} split.")
        if not np.array_equal(np.sort(record.image_ids_N), np.sort(validation.ids_N)):
            raise ContractError(f"Point {index} has a record of other images than validation's.")
        executed = float(record.executed_macs_N.mean())
        claimed = executed if point.claimed_macs is None else point.claimed_macs
        if not math.isclose(claimed, executed, rel_tol=_ALIKE):
            raise ContractError(
                f"Point {index} claims {claimed:,.0f} MACs per image, but its record has "
                f"{executed:,.0f}."
            )


def _keeps(trial: _Trial) -> None:
    budgets = trial.method().budgets(trial.config)
    for index, point in enumerate(trial.whole.points):
        for name, budget in budgets.items():
            spent = _fraction(trial.subject, point, name)
            allowed = budget * (1 + (_TIMED if name == "milliseconds" else _ALIKE))
            if spent is not None and spent > allowed:
                raise ContractError(
                    f"Point {index} costs {spent:.3f} of the dense network's {name}, where the "
                    f"budget is {budget:.3f}, and nothing was said."
                )


def _fraction(subject: Subject, point: RecordedPoint, name: str) -> float | None:
    """Return what a point costs as a fraction of the dense network's; None: nothing to price."""
    if name == "macs" and (point.network is None or len(point.network.sites) == 0):
        return float(point.validation.executed_macs_N.mean()) / dense_macs(subject.network)
    if point.network is None:
        return None
    shape, dense = subject.network.image_shape, subject.network.backbone
    cost = network_cost(name, dense, shape)
    fraction = cost(point.network.backbone) / cost(dense)
    if name != "macs":
        return fraction
    # A policy runs less than its network could; single weights at zero run all the same.
    executed = float(point.validation.executed_macs_N.mean()) / dense_macs(subject.network)
    return min(fraction, executed)


def _afresh(trial: _Trial) -> None:
    first = trial.run("afresh", kill_at=0, recorded=False)
    _same(trial.run("afresh"), len(trial.whole.points), trial, "killed before its first point")
    assert not first.points


def _goes_on(trial: _Trial) -> None:
    if not trial.whole.points:
        return
    killed = trial.run("goes-on", kill_at=0)
    rest = trial.run("goes-on", after=killed)
    _same(rest, len(trial.whole.points) - 1, trial, "killed after its first point")


def _ends(trial: _Trial) -> None:
    if trial.whole.points:
        _same(trial.run("whole", after=trial.whole), 0, trial, "started with all points recorded")


def _same(report: Recorder, wanted: int, trial: _Trial, when: str) -> None:
    """Raise unless a run reported as many points as were missing."""
    if len(report.points) != wanted:
        raise ContractError(
            f"Of {len(trial.whole.points)} points it must report {wanted} when {when}, but it "
            f"reported {len(report.points)}."
        )


PROMISES: dict[str, Callable[[_Trial], None]] = {
    RUNS: _runs,
    SPEAKS: _speaks,
    AGREES: _agrees,
    KEEPS: _keeps,
    AFRESH: _afresh,
    GOES_ON: _goes_on,
    ENDS: _ends,
}


class MethodContract:
    """A test per promise; pytest collects them in each subclass."""

    method_name: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    _card: ClassVar[MethodScorecard]

    def clause(self, promise: str) -> Clause:
        """Return what became of a promise; the method is tried once per test class."""
        suite = type(self)
        if "_card" not in vars(suite):
            suite._card = try_method(self.method_name, self.settings)
        return next(clause for clause in suite._card.clauses if clause.name == promise)

    def test_it_runs_and_reads_no_held_out_image(self) -> None:
        """See `RUNS`."""
        assert self.clause(RUNS).passed, self.clause(RUNS).reason

    def test_it_reports_or_says_why_not(self) -> None:
        """See `SPEAKS`."""
        assert self.clause(SPEAKS).passed, self.clause(SPEAKS).reason

    def test_its_records_agree_with_its_claims(self) -> None:
        """See `AGREES`."""
        assert self.clause(AGREES).passed, self.clause(AGREES).reason

    def test_it_keeps_to_its_budgets(self) -> None:
        """See `KEEPS`."""
        assert self.clause(KEEPS).passed, self.clause(KEEPS).reason

    def test_it_can_be_killed_and_goes_on(self) -> None:
        """See `AFRESH`, `GOES_ON` and `ENDS`."""
        for promise in (AFRESH, GOES_ON, ENDS):
            assert self.clause(promise).passed, self.clause(promise).reason

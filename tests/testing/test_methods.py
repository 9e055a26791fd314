"""The contract suite for methods passes a good one, and names what is wrong with each bad one."""

import copy
import importlib.util
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime_pruning import datasets, methods
from runtime_pruning.errors import ConfigError, UnknownNameError
from runtime_pruning.methods import CalibratedConfig, Method, Report, Task
from runtime_pruning.methods.base import _METHODS
from runtime_pruning.network.policies import FixedPolicy
from runtime_pruning.testing.methods import (
    AFRESH,
    AGREES,
    ENDS,
    GOES_ON,
    KEEPS,
    RUNS,
    SPEAKS,
    MethodContract,
    MethodScorecard,
    try_method,
)
from runtime_pruning.testing.sealed import HeldOutReadError, sealed


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget the methods that a test registers."""
    known = dict(_METHODS._plugins)
    yield
    _METHODS._plugins.clear()
    _METHODS._plugins.update(known)


class Good(Method[CalibratedConfig]):
    """Two points, in order, from where it was interrupted."""

    config_type = CalibratedConfig

    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        for groups in (1, 2)[task.points_done :]:
            report(FixedPolicy(task.network.uniform(groups)), task.network, task.network_effort)


class Boasting(Good):
    """Claims fewer MACs than its record has."""

    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        facts = report.measure(FixedPolicy(task.network.uniform(2)), task.network)
        claimed = replace(facts, analytic_macs_per_image=1000.0)
        if not task.points_done:
            report.known(claimed, task.network_effort)


class Spendthrift(Good):
    """Promises half of the MACs, and spends them all."""

    def budgets(self, config: CalibratedConfig) -> Mapping[str, float]:
        return {"macs": 0.5}


class Silent(Good):
    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        """Do nothing."""


class Honest(Silent):
    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        report.infeasible("Nothing is that cheap.")


class Peeking(Good):
    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        task.data.validation.head(10)


class Forgetful(Good):
    """Begins anew whenever it is started."""

    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        super().fit(replace(task, points_done=0), config, report)


class Spent(Good):
    """Takes a file that it wrote when it began for the sign that it has ended."""

    def fit(self, task: Task, config: CalibratedConfig, report: Report) -> None:
        assert task.work is not None
        if not task.points_done and (task.work / "begun").exists():
            return
        task.work.mkdir(parents=True, exist_ok=True)
        (task.work / "begun").touch()
        super().fit(task, config, report)


def tried(method: type[Method[Any]], name: str = "tried") -> MethodScorecard:
    methods.register(name)(method)
    return try_method(name)


def broken(card: MethodScorecard) -> dict[str, str]:
    return {clause.name: clause.reason for clause in card.clauses if clause.passed is False}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("method", "promise", "reason"),
    [
        (Boasting, AGREES, "Point 0 claims 1,000 MACs per image, but its record has 189,248."),
        (Spendthrift, KEEPS, "Point 1 costs 1.000 of the dense network's macs, where the budget"),
        (Silent, SPEAKS, "reported no point and gave no reason"),
        (Peeking, RUNS, "it read `head` of the validation split"),
        (Spent, AFRESH, "Of 2 points it must report 2 when killed before its first point"),
    ],
)
def test_what_is_wrong_is_named(method: type[Method[Any]], promise: str, reason: str) -> None:
    card = tried(method)
    assert not card.passed
    assert reason in broken(card)[promise]
    assert f"FAILED   {promise}" in str(card)


@pytest.mark.usefixtures("registered")
def test_one_that_begins_anew_repeats_its_points() -> None:
    found = broken(tried(Forgetful))
    assert set(found) == {GOES_ON, ENDS}
    assert "must report 1 when killed after its first point, but it reported 2" in found[GOES_ON]


@pytest.mark.usefixtures("registered")
def test_a_good_one_passes_and_so_does_one_that_says_that_there_is_no_point() -> None:
    assert tried(Good, "good").passed
    card = tried(Honest, "honest")
    assert card.passed
    assert "no feasible point: Nothing is that cheap." in str(card)


@pytest.mark.usefixtures("registered")
def test_the_example_of_a_third_party_passes() -> None:
    path = Path(__file__).parents[1] / "example_method" / "example_method.py"
    spec = importlib.util.spec_from_file_location("example_method", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    methods.register("example-widest")(module.Widest)
    card = try_method("example-widest")
    assert card.passed, str(card)
    assert card.points == 2
    poor = try_method("example-widest", {"macs": [0.01]})
    assert (poor.passed, poor.points) == (True, 0)


def test_unknown_names_and_settings_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dense'"):
        try_method("dens")
    with pytest.raises(ConfigError, match="no setting 'widths'"):
        try_method("fixed-width", {"widths": 3})


def test_sealed_splits_stay_sealed_in_other_processes() -> None:
    data = pickle.loads(pickle.dumps(sealed(datasets.load("digits"))))
    whole = datasets.load("digits")
    assert data.content_hash() == whole.content_hash()
    assert len(data.test) == len(whole.test)
    assert (data.training.labels_N == whole.training.labels_N).all()
    for read in ("images_NCHW", "labels_N", "table", "take", "head"):
        with pytest.raises(HeldOutReadError, match=f"`{read}` of the test split"):
            getattr(data.test, read)
    with pytest.raises(HeldOutReadError):
        _ = copy.deepcopy(data).validation.labels_N


class TestFixedWidth(MethodContract):
    """A built-in method, by the suite that plugin authors inherit."""

    method_name = "fixed-width"
    settings: Mapping[str, Any] = {"calibration_batches": 1}


class TestMagnitude(MethodContract):
    """One that fine-tunes."""

    method_name = "magnitude"
    settings: Mapping[str, Any] = {"macs": [0.5], "finetune": {"epochs": 1, "images": 64}}

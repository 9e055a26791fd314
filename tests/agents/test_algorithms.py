"""Algorithms by name, with settings of their own; a third party's is found by its entry point."""

from pathlib import Path

import pytest

from pruning_envs.network_oracle import OracleLayers
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import ConstrainedProblem
from runtime_pruning.agents.schedule import EpsilonSchedule
from runtime_pruning.agents.settings import DQNSettings, PPOLagrangianSettings
from runtime_pruning.errors import ConfigError, UnknownNameError

PLUGIN = """
from typing import ClassVar
from runtime_pruning.agents.base import AgentSettings, Algorithm
from runtime_pruning.config import config_class

@config_class
class Settings(AgentSettings):
    algorithm: ClassVar[str] = "evolution"
    parents: int = 2

class Evolution(Algorithm[Settings]):
    settings_type = Settings
    def build(self, problem, settings):
        return problem, settings
"""


@pytest.mark.parametrize(
    "values",
    [{"algorithm": "dqn", "lr": 0.5, "epsilon": {"share": 0.2}},
     {"lr": 0.5, "epsilon": {"share": 0.2}}],
)  # fmt: skip
def test_dqn_is_named_or_meant(values: dict[str, object]) -> None:
    wanted = DQNSettings(lr=0.5, epsilon=EpsilonSchedule(share=0.2))
    assert algorithms.settings_of(values) == wanted
    assert algorithms.settings_of(wanted) is wanted
    assert algorithms.settings_of("dqn") == DQNSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gama": 1}, "algorithm 'dqn' has no setting 'gama'. Did you mean 'gamma'?"),
        ({"env_runners": 2}, "any more: it is `resources.env_runner.workers` now."),
        ({"seed": 2}, "any more: it is `seed` now."),
        ({"env_device": "cuda"}, "any more: it is `resources.env_runner.gpus` now."),
        ({"lr": 0}, "`lr > 0` must hold, but got 0."),
    ],
)
def test_what_an_algorithm_does_not_use_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        algorithms.settings_of(values)
    assert message in str(caught.value)


def test_each_kind_of_problem_has_its_algorithms() -> None:
    wanted = PPOLagrangianSettings(lr=0.1)
    assert algorithms.settings_of({"lr": 0.1}, ConstrainedProblem) == wanted
    with pytest.raises(ConfigError, match=r"one of \['ppo-lagrangian'\], but got 'dqn'"):
        algorithms.settings_of("dqn", ConstrainedProblem)
    with pytest.raises(ConfigError, match=r"'dqn'.*, but got 'ppo-lagrangian'"):
        algorithms.settings_of(wanted)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [({}, "must name the costs"), ({"time": 0.5}, "must name the costs"),
     ({"size": 1.5}, "`0 < budgets.size <= 1`")],
)  # fmt: skip
def test_a_budget_that_is_none_is_refused(budgets: dict[str, float], message: str) -> None:
    layers = OracleLayers((1.0,), (1.0,))
    with pytest.raises(ValueError, match=message):
        ConstrainedProblem(network=layers, costs={"size": layers.size}, budgets=budgets)


def test_an_unknown_algorithm_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"called 'dqnn'\. Did you mean 'dqn'"):
        algorithms.settings_of({"algorithm": "dqnn"})


def test_a_third_partys_algorithm_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "evolving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evolving\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[runtime_pruning.algorithms]\nevolution = evolving_plugin:Evolution\n"
    )
    (tmp_path / "evolving_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    assert {"dqn", "evolution"} <= set(algorithms.names())
    settings = algorithms.settings_of({"algorithm": "evolution", "parents": 5})
    problem: object = "a problem"
    assert algorithms.build(problem, settings) == (problem, settings)  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(ConfigError, match="algorithm 'evolution' has no setting 'lr'"):
        algorithms.settings_of({"algorithm": "evolution", "lr": 0.1})

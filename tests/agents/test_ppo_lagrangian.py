"""The constrained agent finds the known optimum within its budget, and can be restored."""

from pathlib import Path

import numpy as np
import pytest

from pruning_envs.network_oracle import OracleLayers
from runtime_pruning.agents import algorithms
from runtime_pruning.agents.base import ConstrainedProblem
from runtime_pruning.agents.settings import PPOLagrangianSettings
from runtime_pruning.resources import AgentResources, EnvRunnerRequest

# RLlib files each environment under one name of its own; gymnasium warns when it is taken.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rllib-single-agent-env-v0 already in registry"),
    pytest.mark.ray,
]

LAYERS = OracleLayers(sizes=(0.5, 0.5), needs=(0.2, 0.6))
BUDGET = 0.5


def problem(env_runners: int = 0) -> ConstrainedProblem:
    return ConstrainedProblem(
        network=LAYERS,
        costs={"size": LAYERS.size},
        budgets={"size": BUDGET},
        resources=AgentResources(env_runner=EnvRunnerRequest(workers=env_runners, cpus=0.5)),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("env_runners", [0, 2])
def test_it_spends_its_budget_where_accuracy_needs_it(env_runners: int) -> None:
    """Half of each layer would leave 0.8; the best within the budget is 0.85."""
    _, best = LAYERS.best(BUDGET)
    settings = PPOLagrangianSettings(epochs=5)
    agent = algorithms.build_constrained(problem(env_runners), settings)
    agent.learn(30 * settings.batch_episodes)
    found = agent.roll_out(64)
    agent.stop()
    cost_E = found.cost_EK[:, 0]
    within = (cost_E <= BUDGET) & (cost_E >= 0.9 * BUDGET)
    assert 0.75 * BUDGET < cost_E.mean() < 1.15 * BUDGET
    assert 0.81 < found.accuracy_E[within].max() <= best + 0.01
    # What is told of an episode is what the environment did.
    np.testing.assert_allclose(1 - found.removed_ET.mean(axis=1), cost_E, atol=1e-6)


@pytest.mark.usefixtures("ray_cluster")
def test_a_restored_agent_rolls_out_alike_and_knows_its_multipliers(tmp_path: Path) -> None:
    settings = PPOLagrangianSettings(batch_episodes=8, epochs=1, multiplier_lr=0.5)
    first, other = (algorithms.build_constrained(problem(), settings) for _ in range(2))
    first.learn(16)
    assert first.env_steps == 2 * 8 * 2
    first.save_to_path(str(tmp_path))
    other.restore_from_path(str(tmp_path))
    assert other.dual.multipliers == first.dual.multipliers  # type: ignore[attr-defined]
    assert other.env_steps == first.env_steps
    weights = [agent.get_module().state_dict() for agent in (first, other)]  # type: ignore[attr-defined]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    for agent in (first, other):
        agent.stop()

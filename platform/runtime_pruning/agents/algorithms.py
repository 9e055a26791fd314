"""Algorithms by name. Third parties name theirs under ``runtime_pruning.algorithms``."""

from collections.abc import Mapping
from typing import Any

from runtime_pruning.agents.base import (
    Agent,
    AgentSettings,
    Algorithm,
    ConstrainedAgent,
    ConstrainedProblem,
    PruningProblem,
)
from runtime_pruning.agents.settings import DQNSettings, PPOLagrangianSettings
from runtime_pruning.config import build_config
from runtime_pruning.errors import ConfigError
from runtime_pruning.registry import Registry

# Of each kind of problem.
DEFAULTS = {
    PruningProblem: DQNSettings.algorithm,
    ConstrainedProblem: PPOLagrangianSettings.algorithm,
}

_ALGORITHMS: Registry[type[Algorithm[Any]]] = Registry("algorithm", "runtime_pruning.algorithms")

register = _ALGORITHMS.register
get = _ALGORITHMS.get


def names() -> list[str]:
    """Return the names of all known algorithms."""
    return sorted(_ALGORITHMS)


def settings_of(values: object, problem_type: type[Any] = PruningProblem) -> AgentSettings:
    """Return the settings that ``agent: {algorithm: name, ...}`` stands for.

    Args:
        values: the mapping; where it names no algorithm, that of the kind of problem. Settings
            are returned as they are.
        problem_type: what is to be learned.

    Raises:
        ConfigError: a setting that the algorithm does not have, or refuses; an algorithm for
            another kind of problem.
        UnknownNameError: no such algorithm.
    """
    if isinstance(values, AgentSettings):
        chosen, settings = get(values.algorithm), values
    else:
        plain = dict(values) if isinstance(values, Mapping) else {"algorithm": values}
        name = str(plain.pop("algorithm", DEFAULTS[problem_type]))
        chosen = get(name)
        settings = build_config(chosen.settings_type, plain, where=f"algorithm {name!r}")
    if chosen.problem_type is not problem_type:
        fitting = [name for name in names() if get(name).problem_type is problem_type]
        raise ConfigError(
            f"The agent's algorithm must be one of {fitting}, but got {settings.algorithm!r}."
        )
    return settings


def build(problem: PruningProblem, settings: AgentSettings) -> Agent:
    """Return an untrained agent of the algorithm whose settings are given."""
    agent: Agent = get(settings.algorithm)().build(problem, settings)
    return agent


def build_constrained(problem: ConstrainedProblem, settings: AgentSettings) -> ConstrainedAgent:
    """Return an untrained agent that prunes a network within budgets."""
    agent: ConstrainedAgent = get(settings.algorithm)().build(problem, settings)
    return agent


@register(DQNSettings.algorithm)
class DQN(Algorithm[DQNSettings]):
    """RLlib's deep Q-learning on whole episodes."""

    settings_type = DQNSettings

    def build(self, problem: PruningProblem, settings: DQNSettings) -> Agent:
        """Return the agent."""
        # RLlib takes 1.4 CPU-seconds to import, in vain where no agent learns.
        from runtime_pruning.agents.algorithm import build as started
        from runtime_pruning.agents.dqn_config import dqn_config

        agent: Agent = started(dqn_config(problem, settings))
        return agent


@register(PPOLagrangianSettings.algorithm)
class PPOLagrangian(Algorithm[PPOLagrangianSettings]):
    """RLlib's PPO with a critic of costs and multipliers that are learned."""

    settings_type = PPOLagrangianSettings
    problem_type = ConstrainedProblem

    def build(
        self, problem: ConstrainedProblem, settings: PPOLagrangianSettings
    ) -> ConstrainedAgent:
        """Return the agent."""
        # RLlib takes 1.4 CPU-seconds to import, in vain where no agent learns.
        from runtime_pruning.agents.algorithm import build as started
        from runtime_pruning.agents.ppo_lagrangian import lagrangian_config

        agent: ConstrainedAgent = started(lagrangian_config(problem, settings))
        return agent

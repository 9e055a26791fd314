"""Algorithms by name. Third parties name theirs under ``runtime_pruning.algorithms``."""

from collections.abc import Mapping
from typing import Any

from runtime_pruning.agents.base import Agent, AgentSettings, Algorithm, PruningProblem
from runtime_pruning.agents.settings import DQNSettings
from runtime_pruning.config import build_config
from runtime_pruning.registry import Registry

DEFAULT = DQNSettings.algorithm

_ALGORITHMS: Registry[type[Algorithm[Any]]] = Registry("algorithm", "runtime_pruning.algorithms")

register = _ALGORITHMS.register
get = _ALGORITHMS.get


def names() -> list[str]:
    """Return the names of all known algorithms."""
    return sorted(_ALGORITHMS)


def settings_of(values: object) -> AgentSettings:
    """Return the settings that ``agent: {algorithm: name, ...}`` stands for.

    Args:
        values: the mapping; DQN's where it names no algorithm. Settings are returned as they are.

    Raises:
        ConfigError: a setting that the algorithm does not have, or refuses.
        UnknownNameError: no such algorithm.
    """
    if isinstance(values, AgentSettings):
        return values
    plain: dict[str, Any] = dict(values) if isinstance(values, Mapping) else {"algorithm": values}
    name = str(plain.pop("algorithm", DEFAULT))
    chosen = get(name)
    return build_config(chosen.settings_type, plain, where=f"algorithm {name!r}")


def build(problem: PruningProblem, settings: AgentSettings) -> Agent:
    """Return an untrained agent of the algorithm whose settings are given."""
    agent: Agent = get(settings.algorithm)().build(problem, settings)
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

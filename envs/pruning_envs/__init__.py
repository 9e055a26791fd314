"""Runtime pruning as Markov decision processes, in gymnasium's interface.

``gymnasium.make("pruning_envs:RuntimePruning-v0", network=..., images=..., labels=...,
penalty=...)``, ``gymnasium.make("pruning_envs:Cascade-v0", table=..., penalty=...)``, and
``make_vec`` with ``vectorization_mode="vector_entry_point"``; ``gymnasium.make(
"pruning_envs:NetworkPruning-v0", network=..., costs=...)``, whose copies share nothing.
"""

import gymnasium

from pruning_envs.cascade_env import CascadeEnv, CascadeVectorEnv
from pruning_envs.cascade_table import CascadeTable
from pruning_envs.network_env import NetworkPruningEnv
from pruning_envs.protocols import (
    AnswerLoss,
    ExecutionMode,
    GroupCost,
    Images,
    LayerwiseNetwork,
    NetworkCost,
    StagedNetwork,
    StagedRun,
    StepCost,
    answer_loss,
)
from pruning_envs.sampling import PenaltyRange
from pruning_envs.single_env import RuntimePruningEnv
from pruning_envs.vector_env import RuntimePruningVectorEnv

__all__ = [
    "IDS",
    "AnswerLoss",
    "CascadeEnv",
    "CascadeTable",
    "CascadeVectorEnv",
    "ExecutionMode",
    "GroupCost",
    "Images",
    "LayerwiseNetwork",
    "NetworkCost",
    "NetworkPruningEnv",
    "PenaltyRange",
    "RuntimePruningEnv",
    "RuntimePruningVectorEnv",
    "StagedNetwork",
    "StagedRun",
    "StepCost",
    "answer_loss",
]

IDS = ("RuntimePruning-v0", "Cascade-v0", "NetworkPruning-v0")

gymnasium.register(
    "RuntimePruning-v0",
    entry_point="pruning_envs.single_env:RuntimePruningEnv",
    vector_entry_point="pruning_envs.vector_env:RuntimePruningVectorEnv",
)
gymnasium.register(
    "Cascade-v0",
    entry_point="pruning_envs.cascade_env:CascadeEnv",
    vector_entry_point="pruning_envs.cascade_env:CascadeVectorEnv",
)
gymnasium.register("NetworkPruning-v0", entry_point="pruning_envs.network_env:NetworkPruningEnv")

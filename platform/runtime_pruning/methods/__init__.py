"""Methods: each turns a task into operating points.

A plugin is one class with one abstract method, `Method.fit`, filed by `register`. Third parties
name theirs under the entry-point group ``runtime_pruning.methods``.
"""

# Built-in methods register on import.
from runtime_pruning.methods.base import (
    CalibratedConfig,
    Effort,
    KnownPoint,
    Method,
    Report,
    Sources,
    Task,
    get,
    names,
    register,
)
from runtime_pruning.methods.cascade import Cascade, CascadeConfig
from runtime_pruning.methods.constrained_rl import ConstrainedRL, ConstrainedRLConfig
from runtime_pruning.methods.dense import Dense, DenseConfig
from runtime_pruning.methods.fixed_width import FixedWidth
from runtime_pruning.methods.magnitude import Magnitude, MagnitudeConfig
from runtime_pruning.methods.manidp import Manidp, ManidpConfig
from runtime_pruning.methods.rnp import RNP, RNPConfig
from runtime_pruning.methods.vanilla import Vanilla, VanillaConfig
from runtime_pruning.methods.w_gates import WGates, WGatesConfig

__all__ = [
    "RNP",
    "CalibratedConfig",
    "Cascade",
    "CascadeConfig",
    "ConstrainedRL",
    "ConstrainedRLConfig",
    "Dense",
    "DenseConfig",
    "Effort",
    "FixedWidth",
    "KnownPoint",
    "Magnitude",
    "MagnitudeConfig",
    "Manidp",
    "ManidpConfig",
    "Method",
    "RNPConfig",
    "Report",
    "Sources",
    "Task",
    "Vanilla",
    "VanillaConfig",
    "WGates",
    "WGatesConfig",
    "get",
    "names",
    "register",
]

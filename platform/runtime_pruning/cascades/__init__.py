"""Cascades over operating points: found and judged from their records, no network run.

``answers`` lines up what members said, ``calibration`` and ``combining`` make one answer of
several; ``thresholds``, ``regression`` and ``q_chooser`` choose who runs next, all held against the
same `pruning_envs.CascadeTable`. ``facts`` makes a record of what was found, ``executor`` runs it.
"""

from runtime_pruning.cascades.answers import Answers, align
from runtime_pruning.cascades.calibration import fit_temperature
from runtime_pruning.cascades.choosing import Chooser, Outcome, judge, run
from runtime_pruning.cascades.combining import Combination, Rule, fit_combination
from runtime_pruning.cascades.executor import (
    CascadeExecution,
    CascadeExecutor,
    CascadeMember,
    MemberAnswer,
)
from runtime_pruning.cascades.facts import cascade_record, record_of_sets
from runtime_pruning.cascades.q_chooser import QChooser, QNetwork
from runtime_pruning.cascades.regression import RegressionChooser, fit_regression
from runtime_pruning.cascades.thresholds import ThresholdChooser, best_of, search_thresholds

__all__ = [
    "Answers",
    "CascadeExecution",
    "CascadeExecutor",
    "CascadeMember",
    "Chooser",
    "Combination",
    "MemberAnswer",
    "Outcome",
    "QChooser",
    "QNetwork",
    "RegressionChooser",
    "Rule",
    "ThresholdChooser",
    "align",
    "best_of",
    "cascade_record",
    "fit_combination",
    "fit_regression",
    "fit_temperature",
    "judge",
    "record_of_sets",
    "run",
    "search_thresholds",
]

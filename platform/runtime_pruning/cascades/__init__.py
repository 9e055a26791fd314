"""Cascades over operating points: found and judged from their records, no network run.

``answers`` lines up what members said, ``calibration`` and ``combining`` make one answer of
several, ``thresholds`` and ``regression`` choose who runs next. A chooser of any kind is held
against the same `pruning_envs.CascadeTable`.
"""

from runtime_pruning.cascades.answers import Answers, align
from runtime_pruning.cascades.calibration import fit_temperature
from runtime_pruning.cascades.choosing import Chooser, Outcome, judge, run
from runtime_pruning.cascades.combining import Combination, Rule, fit_combination
from runtime_pruning.cascades.regression import RegressionChooser, fit_regression
from runtime_pruning.cascades.thresholds import ThresholdChooser, best_of, search_thresholds

__all__ = [
    "Answers",
    "Chooser",
    "Combination",
    "Outcome",
    "RegressionChooser",
    "Rule",
    "ThresholdChooser",
    "align",
    "best_of",
    "fit_combination",
    "fit_regression",
    "fit_temperature",
    "judge",
    "run",
    "search_thresholds",
]

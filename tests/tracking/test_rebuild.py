"""A sweep comes back from MLflow alone, and what does not fit is found."""

from types import ModuleType

import pytest
from stores import log_point, settle

from runtime_pruning.errors import DataError
from runtime_pruning.tracking.mlflow_store import FrontierTracker
from runtime_pruning.tracking.rebuild import rebuild

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def test_an_unknown_sweep_is_named(tracker: FrontierTracker, uri: str) -> None:
    tracker.start_sweep({})
    settle(tracker)
    assert rebuild(uri, "s1") == []
    with pytest.raises(DataError, match="No sweep 's2'"):
        rebuild(uri, "s2")


def test_figures_that_the_record_does_not_give_are_found_by_a_rebuild(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType
) -> None:
    point, _ = synthetic.make_point(0.5)
    log_point(tracker, (point, synthetic.make_record(0.6)))
    with pytest.raises(DataError, match=f"Point {point.point_id} must have the figures"):
        rebuild(uri, "s1")

"""A sweep's run is kept up to date: who is on the front."""

from types import ModuleType

import pytest
from stores import by_id, log_point

from runtime_pruning import glossary
from runtime_pruning.tracking.mlflow_store import FrontierTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader")


def test_front_tags_follow_the_points(
    tracker: FrontierTracker, uri: str, synthetic: ModuleType
) -> None:
    worse, better = synthetic.make_point(0.5, skill=0.8), synthetic.make_point(0.49)
    log_point(tracker, worse)
    assert by_id(uri)[worse[0].point_id].data.tags[glossary.ON_FRONT] == "true"
    log_point(tracker, better)
    tags = {key: run.data.tags[glossary.ON_FRONT] for key, run in by_id(uri).items()}
    assert tags == {worse[0].point_id: "false", better[0].point_id: "true"}

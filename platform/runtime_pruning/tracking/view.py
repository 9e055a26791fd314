"""Addresses inside MLflow, and the saved view "Frontier" of its runs page.

The view shows accuracy against cost: the front, and of the other points so many as a chart holds.

MLflow's page keeps shared views as experiment tags ``mlflow.sharedViewState.<key>``: zlib, base64,
JSON. The format is not documented, so failing to install a view harms nothing else.
"""

import base64
import json
import re
import zlib
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from runtime_pruning import glossary
from runtime_pruning.frontier import style

_SECTION = "frontier"
_MAX_LINKS = 10  # a tag of an experiment holds 5000 characters
IN_VIEW = 100  # points: more MLflow does not draw in one chart


def view_key(sweep_id: str) -> str:
    """Return the key of a sweep's view, fit for a tag's name and an address."""
    return "frontier-" + re.sub(r"[^A-Za-z0-9-]", "-", sweep_id)


def view_tag(sweep_id: str) -> str:
    """Return the name of the experiment tag that holds a sweep's view."""
    return f"mlflow.sharedViewState.{view_key(sweep_id)}"


def view_path(experiment_id: str, sweep_id: str) -> str:
    """Return the part of the view's address behind the server's: ``/#/experiments/...``."""
    return (
        f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view_key(sweep_id)}"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def run_path(experiment_id: str, run_id: str) -> str:
    """Return the part of a run's address behind the server's."""
    return f"/#/experiments/{experiment_id}/runs/{run_id}"


def artifact_path(experiment_id: str, run_id: str, artifact: str) -> str:
    """Return the part of the address where MLflow shows an artifact, behind the server's."""
    return f"{run_path(experiment_id, run_id)}/artifacts/{artifact}?workflowType=machine_learning"


def page_path(experiment_id: str, sweep_run_id: str) -> str:
    """Return the part of the address where MLflow shows a sweep's page, behind the server's."""
    return artifact_path(experiment_id, sweep_run_id, glossary.PAGE)


def without_credentials(uri: str) -> str:
    """Return a server's address without the name and password that may stand in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def experiment_note(old: str, experiment_id: str, sweep_id: str, sweep_run_id: str) -> str:
    """Return the experiment's description with links to a sweep's page and view as its first line.

    MLflow folds the description down to its first line, on every page of the experiment: so the
    newest sweep's frontier is two clicks from the root page. Text that is not ours stays.
    """
    start = f"[Frontier of {sweep_id}]("
    page = page_path(experiment_id, sweep_run_id).removeprefix("/")
    chart = view_path(experiment_id, sweep_id).removeprefix("/")
    lines = [line for line in old.splitlines() if line.strip() and not line.startswith(start)]
    ours = [line for line in lines if line.startswith("[Frontier of ")][: _MAX_LINKS - 1]
    others = [line for line in lines if not line.startswith("[Frontier of ")]
    first = f"{start}{page}): the page, or its points as a [chart]({chart})"
    return "\n\n".join([first, *ours, *others])


def in_view(on_front: Mapping[str, bool], first: Collection[str] = ()) -> set[str]:
    """Return the ids of the points that the view shows: the front, and a thinned rest.

    Which of the rest is decided by their ids, so that a point that comes moves few others.

    Args:
        on_front: whether a point is on the front, by id.
        first: ids that come right after the front.
    """

    def rank(point_id: str) -> tuple[bool, bool, int]:
        return not on_front[point_id], point_id not in first, zlib.crc32(point_id.encode())

    return set(sorted(on_front, key=rank)[:IN_VIEW])


def run_colour(method: str, *, on_front: bool) -> str:
    """Return the colour of a point's run: its method's, pale behind the front."""
    colour = style.look(method).colour
    if on_front:
        return colour
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{(channel + 2 * 255) // 3:02X}" for channel in channels)


def view_value(sweep_id: str, at_ms: int) -> str:
    """Return the tag's value: the state of the page, packed as the page packs it."""
    packed = base64.b64encode(zlib.compress(json.dumps(_state(sweep_id)).encode())).decode()
    view = {
        "name": f"Frontier {sweep_id}",
        "createdAt": at_ms,
        "updatedAt": at_ms,
        "state": f"deflate;{packed}",
    }
    return json.dumps(view)


def _state(sweep_id: str) -> dict[str, Any]:
    """Return the state of the runs page: filter, order, columns and charts."""
    metrics = [glossary.ACCURACY, glossary.MACS_FRACTION, glossary.EXECUTED_MACS]
    params = ["method", "groups", "penalty", "seed"]
    return {
        "searchFilter": (
            f"tags.`{glossary.KIND}` = 'point' and tags.`{glossary.SWEEP_ID}` = '{sweep_id}' "
            f"and tags.`{glossary.IN_VIEW}` = 'true'"
        ),
        # Sorting by a metric unfolds the points from under their trials.
        "orderByKey": f"metrics.`{glossary.ACCURACY.name}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": [
            *(f"metrics.`{metric.name}`" for metric in metrics),
            *(f"params.`{name}`" for name in params),
            f"tags.`{glossary.ON_FRONT}`",
        ],
        "compareRunSections": [
            {
                "uuid": _SECTION,
                "name": "Frontier",
                "display": True,
                "isReordered": False,
                "deleted": False,
                "isGenerated": False,
                "columns": 1,
                "cardHeight": 420,
            }
        ],
        "compareRunCharts": _charts(),
        "columnOrder": [],
        "columnWidths": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {},
    }


def _charts() -> list[dict[str, Any]]:
    """Return accuracy against executed MACs, the same over quantiles, and the settings."""
    cost, tail = glossary.EXECUTED_MACS.name, glossary.EXECUTED_MACS_P90.name
    accuracy = glossary.ACCURACY.name
    parallel = {
        "type": "PARALLEL",
        "displayName": "Settings, cost, accuracy",
        "selectedParams": ["groups", "penalty"],
        "selectedMetrics": [glossary.MACS_FRACTION.name, accuracy],
    }
    return [
        {**_frame("scatter"), **_scatter(cost, accuracy, "Accuracy against mean MACs")},
        {**_frame("scatter-p90"), **_scatter(tail, accuracy, "Accuracy against p90 MACs")},
        {**_frame("parallel"), **parallel},
    ]


def _scatter(x: str, y: str, name: str) -> dict[str, Any]:
    """Return a scatter chart of two metrics."""
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return {"type": "SCATTER", "displayName": name, **axes}


def _frame(uuid: str) -> dict[str, Any]:
    """Return what all charts have."""
    return {
        "uuid": f"frontier-{uuid}",
        "runsCountToCompare": IN_VIEW,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
    }

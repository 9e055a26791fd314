"""Descriptions of runs in MLflow, in Markdown, with links that stay inside MLflow."""

from collections.abc import Iterable, Sequence

from runtime_pruning import glossary
from runtime_pruning.frontier.points import OperatingPoint
from runtime_pruning.frontier.report import markdown_table
from runtime_pruning.frontier.summary import FrontierSummary
from runtime_pruning.tracking import view

LONGEST = 7900  # characters; a tag holds 8000
_ROWS = (30, 20, 10, 5, 1)

_SWEEP_METRICS = (*glossary.SWEEP_METRICS, glossary.ACCURACY, glossary.EXECUTED_MACS)
_POINT_METRICS = (
    glossary.ACCURACY,
    glossary.LOSS,
    glossary.EXECUTED_MACS,
    glossary.MACS_FRACTION,
    glossary.EXECUTED_MACS_P90,
    glossary.DENSE_MACS,
    *glossary.EFFORT,
)
# By what the artifact's name starts with: what it is called in a description.
_FILES = {
    glossary.POINT: "the point",
    glossary.RECORD: "its record, one row per image",
    glossary.BUNDLE: "its bundle",
}
_DYNAMICS_FILES = {
    glossary.DECISIONS: "what its decisions depend on",
    glossary.GALLERY: "images that it spends least and most on",
    glossary.DYNAMICS_FILE: "gains over each control",
}


def sweep_note(summary: FrontierSummary, experiment_id: str, run_id: str, sweep_id: str) -> str:
    """Return the description of a sweep's run: links, the front, what the numbers mean."""
    page = view.page_path(experiment_id, run_id).removeprefix("/")
    chart = view.view_path(experiment_id, sweep_id).removeprefix("/")
    head = (
        f"**[The frontier page]({page})**, or [its points as a chart of MLflow]({chart}).\n\n"
        f"{len(summary.points)} operating points, {len(summary.front)} on the front, "
        f"hypervolume {summary.hypervolume:.4f}. Choose one: "
        f"`runtime-pruning pick {sweep_id} --macs 0.5`."
    )
    meanings = meaning_table(_SWEEP_METRICS)
    for rows in _ROWS:
        table = markdown_table(summary, front_only=True, limit=rows)
        note = f"{head}\n\n{table}\n\n{meanings}"
        if len(note) <= LONGEST:
            return note
    return head


def point_note(
    point: OperatingPoint, experiment_id: str, run_id: str, sweep_run_id: str, files: Iterable[str]
) -> str:
    """Return the description of a point's run.

    Args:
        point: measured on validation.
        experiment_id: where its run is.
        run_id: of its run.
        sweep_run_id: of the sweep's run, which has the page.
        files: names of the artifacts that it has.
    """
    page = view.page_path(experiment_id, sweep_run_id).removeprefix("/")
    links = [
        f"[{words}]({view.artifact_path(experiment_id, run_id, name).removeprefix('/')})"
        for name in sorted(files)
        if (words := _FILES.get(name)) is not None
    ]
    return (
        f"**{point.method}** on {point.backbone}: {point.accuracy:.2%} of "
        f"{point.figures.images:,} {point.split} images of {point.dataset} are classified rightly, "
        f"at {point.macs_fraction:.1%} of the dense network's MACs.\n\n"
        f"[The frontier page of its sweep]({page}). Ship it: "
        f"`runtime-pruning export {point.point_id} --out {point.point_id}`.\n\n"
        f"Files: {', '.join(links)}.\n\n{meaning_table(_POINT_METRICS)}"
    )


def with_dynamics(note: str, experiment_id: str, run_id: str, folder: str) -> str:
    """Return a point's description with links to what its controls showed."""
    paths = {
        words: view.artifact_path(experiment_id, run_id, f"{folder}/{name}").removeprefix("/")
        for name, words in _DYNAMICS_FILES.items()
    }
    links = [f"[{words}]({path})" for words, path in paths.items()]
    line = f"Controls ({folder}): {', '.join(links)}."
    return note if line in note else f"{note}\n\n{line}"


def meaning_table(metrics: Sequence[glossary.Metric]) -> str:
    """Return name, unit, good direction and meaning of metrics."""
    rows = [f"| {m.name} | {m.unit} | {m.better} | {m.meaning} |" for m in metrics]
    return "\n".join(["| metric | unit | better | meaning |", "|---|---|---|---|", *rows])

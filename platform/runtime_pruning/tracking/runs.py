"""Runs that are found before they are created, so that writing twice is writing once.

A run is known by the tag ``frontier.key``: what it is, not when it was made. FINISHED is the mark
that a point is whole; whatever a crash left half written is completed, never repeated.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Param, Run, RunTag

from runtime_pruning import glossary
from runtime_pruning.curves import Series
from runtime_pruning.files import link_tree

log = logging.getLogger(__name__)

_PAGE_SIZE = 1000
_MAX_PARAM = 6000  # characters, MLflow's own limit
_BATCH_OF_METRICS = 1000  # in one call, likewise
_BATCH = 100  # parameters or tags in one call, MLflow's own limit


class Runs:
    """The runs of one experiment.

    Args:
        client: of a store that exists.
        experiment_id: where the runs live.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id

    def search(self, **tags: str) -> Iterator[Run]:
        """Yield the runs whose ``frontier.<name>`` tags have these values, oldest first."""
        clauses = [f"tags.`frontier.{name}` = '{value}'" for name, value in tags.items()]
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                " and ".join(clauses),
                max_results=_PAGE_SIZE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def find(self, key: str) -> Run | None:
        """Return the run of that key.

        A server that answered too late may have created it twice; a finished one wins, else the
        oldest, and the others are deleted.
        """
        found = sorted(self.search(key=key), key=lambda run: run.info.status != "FINISHED")
        for extra in found[1:]:
            log.warning("Deleting run %s, a second copy of %s.", extra.info.run_id, key)
            self.client.delete_run(extra.info.run_id)
        return found[0] if found else None

    def find_or_create(
        self, key: str, *, name: str, tags: Mapping[str, str], parent: str | None, at_ms: int
    ) -> Run:
        """Return the run of that key, created under ``parent`` if there is none."""
        found = self.find(key)
        if found is not None:
            return found
        nesting = {glossary.PARENT: parent} if parent else {}
        return self.client.create_run(
            self.experiment_id,
            start_time=at_ms,
            run_name=name,
            tags={glossary.KEY: key, **tags, **nesting},
        )

    def write(
        self,
        run: Run,
        *,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        at_ms: int,
        step: int = 0,
    ) -> None:
        """Log in few calls; parameters that the run has already keep their first value."""
        new = _new_params(run, params or {})
        measured = [MlflowMetric(k, float(v), at_ms, step) for k, v in (metrics or {}).items()]
        labels = [RunTag(k, v) for k, v in (tags or {}).items()]
        run_id = run.info.run_id
        self.client.log_batch(run_id, measured, new[:_BATCH], labels)
        for start in range(_BATCH, len(new), _BATCH):
            self.client.log_batch(run_id, params=new[start : start + _BATCH])

    def write_series(self, run: Run, series: Series, *, at_ms: int) -> None:
        """Log curves; of a step that the run has already the first reading stays."""
        run_id, readings = run.info.run_id, list[MlflowMetric]()
        for name, pairs in series.items():
            history = self.client.get_metric_history(run_id, name)
            known = {reading.step for reading in history}
            readings += [
                MlflowMetric(name, float(value), at_ms, int(step))
                for step, value in pairs
                if int(step) not in known
            ]
        for start in range(0, len(readings), _BATCH_OF_METRICS):
            batch = readings[start : start + _BATCH_OF_METRICS]
            self.client.log_batch(run_id, metrics=batch)

    def keep(self, run: Run, path: Path) -> None:
        """Keep a file or folder as the run's artifact of that name.

        Where artifacts lie in a folder of this machine, the file gets a second name there: the
        weights of a network are on the disk once. Neither name may be written to in place.
        """
        uri = urlsplit(run.info.artifact_uri)
        if uri.scheme in ("", "file"):
            link_tree(path, Path(unquote(uri.path)))
        elif path.is_dir():
            self.client.log_artifacts(run.info.run_id, str(path), path.name)
        else:
            self.client.log_artifact(run.info.run_id, str(path))

    def end(self, run: Run, status: str, at_ms: int) -> None:
        """Set how a run ended, and when."""
        self.client.set_terminated(run.info.run_id, status, end_time=at_ms)

    def reopen(self, run: Run) -> None:
        """Mark a run that goes on as running again."""
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one level with dotted names."""
    level: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            level.update(flat(value, f"{prefix}{name}."))
        else:
            level[f"{prefix}{name}"] = value
    return level


def _new_params(run: Run, params: Mapping[str, object]) -> Sequence[Param]:
    """Return the parameters that a run lacks; say so where one has another value."""
    known = run.data.params
    texts = {name: str(value)[:_MAX_PARAM] for name, value in params.items()}
    for name, text in texts.items():
        if known.get(name, text) != text:
            log.warning(
                "Run %s keeps %s=%r; %r came later.", run.info.run_id, name, known[name], text
            )
    return [Param(name, text) for name, text in texts.items() if name not in known]

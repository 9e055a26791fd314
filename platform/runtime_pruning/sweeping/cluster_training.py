"""Preparation on the cluster: Ray Train's workers train on the nodes that have the device.

Each worker holds the whole network and a share of each batch (`network.workers`); the first writes
checkpoints and results to a place that all nodes see. The driver trains nothing: it waits, and
says how far they are.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import train as ray_train
from ray.train.torch import TorchConfig, TorchTrainer

from runtime_pruning.datasets.cache import cache_folder
from runtime_pruning.errors import UserError
from runtime_pruning.files import locked
from runtime_pruning.places import Place, PlaceError
from runtime_pruning.plugins import use_plugins
from runtime_pruning.sweeping.checks import Material
from runtime_pruning.sweeping.cluster import sigint_given_back
from runtime_pruning.sweeping.prepare import Prepared, entries, is_prepared, prepare

_SEND_SECONDS = 10.0  # between looks for a new checkpoint, where it goes to an object store
MAX_FAILURES = 3  # of a worker or its node, each of which goes on from the last checkpoint
_REFUSED = "refused"


def prepare_on_cluster(material: Material, cache: Place) -> Prepared:
    """Return the prepared network, trained by Ray Train where ``cache`` does not hold it already.

    Sweeps that need the same network wait for the one that trains it; at an object store, which
    has no locks, those of other machines train it too, and write the same.

    Args:
        material: the checked sweep.
        cache: a place that all nodes see.

    Raises:
        UserError: a loss that is not finite, or a GPU that was asked for and is not there.
        ray.train.TrainingFailedError: workers failed more often than is forgiven.
    """
    with locked(_lock(cache)):
        if not is_prepared(material, cache):
            _train(material, cache)
        with cache.opened(only=entries(material)) as folder:
            return prepare(material, folder, shared=cache.local is not None)


def _lock(cache: Place) -> Path:
    """Return the file that sweeps lock while they train what goes to a cache."""
    if cache.local is not None:
        return cache.local / "locks" / "training"
    return cache_folder() / "locks" / hashlib.sha256(cache.address.encode()).hexdigest()[:16]


def _train(material: Material, cache: Place) -> None:
    """Run the workers to their end."""
    request, name = material.sweep.resources.prepare, f"training-{uuid4().hex[:12]}"
    told = f"{name}.txt"
    config = {"material": ray.put(material), "cache": cache, "told": told}
    trainer = TorchTrainer(
        _work,
        train_loop_config=config,
        scaling_config=ray_train.ScalingConfig(
            num_workers=request.workers,
            use_gpu=bool(request.gpus),
            resources_per_worker=request.bundle,
        ),
        torch_config=TorchConfig(backend="nccl" if request.gpus else "gloo"),
        run_config=ray_train.RunConfig(
            name=name,
            storage_path=cache.path,
            storage_filesystem=cache.filesystem,
            failure_config=ray_train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        with _printing(cache, told), sigint_given_back():
            metrics = trainer.fit().metrics or {}
    except SystemExit as error:  # what Ray Train makes of SIGINT
        raise KeyboardInterrupt from error
    finally:
        for left in (told, name):
            cache.delete(left)
    if _REFUSED in metrics:
        raise UserError(metrics[_REFUSED])
    for entry in entries(material):
        cache.delete(f"{entry}.partial")  # a folder was renamed; what was uploaded stays


@contextmanager
def _printing(cache: Place, told: str) -> Iterator[None]:
    """Print the lines that the workers add to a file, meanwhile."""
    ended = threading.Event()
    seconds = 0.5 if cache.local is not None else 3.0

    def read() -> None:
        lines = 0
        while True:
            last = ended.wait(seconds)
            found = []
            with suppress(PlaceError):  # what is read later has these lines too
                found = (cache.read_text(told) or "").splitlines()
            for line in found[lines:]:
                print(line, flush=True)
            lines = max(lines, len(found))
            if last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def _work(config: dict[str, Any]) -> None:
    """Prepare as one of the workers; what is the user's to mend is told, not tried again."""
    material: Material = ray.get(config["material"])
    use_plugins(material.sweep.plugins)
    material.sweep.resources.prepare.use()
    cache: Place = config["cache"]
    first = ray_train.get_context().get_world_rank() == 0
    tell = partial(_tell, cache, config["told"], first=first)
    kept = [name for entry in entries(material) for name in (entry, f"{entry}.partial")]
    try:
        with cache.opened(only=kept, every_s=_SEND_SECONDS, sends=first) as folder:
            prepare(material, folder, tell=tell, shared=cache.local is not None)
    except PlaceError:
        raise  # Ray Train tries again
    except UserError as error:
        ray_train.report({_REFUSED: str(error)})


def _tell(cache: Place, told: str, line: str, *, first: bool) -> None:
    """Add a line for the driver to print; the first worker does it for all."""
    if first:
        cache.write_text(told, f"{cache.read_text(told) or ''}{line}\n")

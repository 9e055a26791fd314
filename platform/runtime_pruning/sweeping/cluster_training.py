"""Preparation on the cluster: Ray Train's workers train on the nodes that have the device.

Each worker holds the whole network and a share of each batch (`network.workers`); the first writes
checkpoints and results to a folder that all nodes see. The driver trains nothing: it waits, and
says how far they are.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import train as ray_train
from ray.train.torch import TorchConfig, TorchTrainer

from runtime_pruning.errors import UserError
from runtime_pruning.files import locked
from runtime_pruning.plugins import use_plugins
from runtime_pruning.sweeping.checks import Material
from runtime_pruning.sweeping.cluster import sigint_given_back
from runtime_pruning.sweeping.prepare import Prepared, is_prepared, prepare

MAX_FAILURES = 3  # of a worker or its node, each of which goes on from the last checkpoint
_REFUSED = "refused"


def prepare_on_cluster(material: Material, cache: Path) -> Prepared:
    """Return the prepared network, trained by Ray Train where ``cache`` does not hold it already.

    Sweeps that need the same network wait for the one that trains it.

    Args:
        material: the checked sweep.
        cache: a folder that all nodes see.

    Raises:
        UserError: a loss that is not finite, or a GPU that was asked for and is not there.
        ray.train.TrainingFailedError: workers failed more often than is forgiven.
    """
    with locked(cache / "locks" / "training"):
        if not is_prepared(material, cache):
            _train(material, cache)
        return prepare(material, cache)


def _train(material: Material, cache: Path) -> None:
    """Run the workers to their end."""
    request, name = material.sweep.resources.prepare, f"training-{uuid4().hex[:12]}"
    told = cache / f"{name}.txt"
    config = {"material": ray.put(material), "cache": str(cache), "told": str(told)}
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
            storage_path=str(cache),
            failure_config=ray_train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        with _printing(told), sigint_given_back():
            metrics = trainer.fit().metrics or {}
    except SystemExit as error:  # what Ray Train makes of SIGINT
        raise KeyboardInterrupt from error
    finally:
        told.unlink(missing_ok=True)
        shutil.rmtree(cache / name, ignore_errors=True)
    if _REFUSED in metrics:
        raise UserError(metrics[_REFUSED])


@contextmanager
def _printing(told: Path) -> Iterator[None]:
    """Print the lines that the workers add to a file, meanwhile."""
    ended = threading.Event()

    def read() -> None:
        lines = 0
        while True:
            last = ended.wait(0.5)
            found = told.read_text().splitlines() if told.exists() else []
            for line in found[lines:]:
                print(line, flush=True)
            lines = len(found)
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
    try:
        prepare(material, Path(config["cache"]), tell=partial(_tell, Path(config["told"])))
    except UserError as error:
        ray_train.report({_REFUSED: str(error)})


def _tell(told: Path, line: str) -> None:
    """Add a line for the driver to print; the first worker does it for all."""
    if ray_train.get_context().get_world_rank() == 0:
        with told.open("a") as file:
            file.write(f"{line}\n")

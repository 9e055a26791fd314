"""Two processes that train one network together, by gloo."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing, nn

from runtime_pruning.backbones import create
from runtime_pruning.datasets import load
from runtime_pruning.errors import ConfigError
from runtime_pruning.network import PrunableNetwork, trace, trainer
from runtime_pruning.network.trainer import EpochReport, TrainConfig
from runtime_pruning.network.training import train
from runtime_pruning.network.workers import Workers

CONFIG = {
    "epochs": 2,
    "batch_size": 64,
    "lr": 0.1,
    "pad": 1,
    "random_plans": 1,
    "precision": "float32",
}


def digits_net() -> PrunableNetwork:
    return trace(create("digits-cnn", num_classes=10, image_shape=(1, 8, 8)), (1, 8, 8))


def of_one_group(rank: int, folder: Path, work: Callable[[int, Path], None]) -> None:
    """Join a process group of two, and work in it."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    work(rank, folder)
    torch.distributed.destroy_process_group()


def by_two(folder: Path, work: Callable[[int, Path], None]) -> None:
    """Run a function in two processes of a group."""
    folder.mkdir(exist_ok=True)
    (folder / "meeting").unlink(missing_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.spawn(of_one_group, (folder, work), nprocs=2)


def train_and_save(rank: int, folder: Path) -> None:
    """Train with a checkpoint after each step of the second epoch, killed there the first time."""
    trainer.CHECKPOINT_SECONDS = 0.0
    network, file = digits_net(), folder / "training.pt"
    steps = 0

    class StoppedError(Exception):
        pass

    plain = trainer.Trainer.save

    def save(self: Any) -> None:
        nonlocal steps
        plain(self)
        steps += len(self.reports) == 1
        if steps == 3 and (folder / "kill").exists():
            raise StoppedError

    trainer.Trainer.save = save  # type: ignore[method-assign]
    images = load("digits").training.head(512)
    reports: list[EpochReport] = []
    try:
        train(
            *(network, images, TrainConfig(**CONFIG)),
            progress=False,
            checkpoint=file,
            on_epoch=reports.append,
        )
    except StoppedError:
        return
    finally:
        trainer.Trainer.save = plain  # type: ignore[method-assign]
    told = [report[:3] for report in reports]
    torch.save((network.backbone.state_dict(), told), folder / f"{rank}.pt")


def state(folder: Path, rank: int) -> Any:
    return torch.load(folder / f"{rank}.pt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_two_workers_hold_one_network_and_go_on_within_an_epoch_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    by_two(whole, train_and_save)
    (weights, told), (others, _) = (state(whole, rank) for rank in range(2))
    assert same(weights, others)
    assert told[-1][1] < 0.9 * told[0][1]  # the loss: it learns
    cut.mkdir()
    (cut / "kill").touch()
    by_two(cut, train_and_save)
    saved = torch.load(cut / "training.pt", weights_only=True)
    assert (len(saved["reports"]), saved["epoch"]["step"], saved["workers"]) == (1, 2, 2)
    (cut / "kill").unlink()
    by_two(cut, train_and_save)
    assert same(state(cut, 0)[0], weights)
    with pytest.raises(ConfigError, match="its workers is 2, not 1"):
        train(
            *(digits_net(), load("digits").training.head(512), TrainConfig(**CONFIG)),
            progress=False,
            checkpoint=cut / "training.pt",
        )


def average(rank: int, folder: Path) -> None:
    """Average gradients, statistics and numbers that depend on the rank."""
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    network[0].weight.grad = torch.tensor([[1.0, 4.0]]) * (rank + 1)
    network[1].running_mean.fill_(10.0 * rank)  # type: ignore[union-attr, operator]
    workers = Workers.of_process_group()
    numbers = workers.average(network, [2.0 * rank, 7.0])
    rows = workers.share(torch.arange(6))
    torch.save(
        (network[0].weight.grad, network[1].running_mean, numbers, rows), folder / f"{rank}.pt"
    )


def test_what_workers_differ_in_is_averaged(tmp_path: Path) -> None:
    by_two(tmp_path, average)
    for rank in range(2):
        gradient, mean, numbers, rows = state(tmp_path, rank)
        assert gradient.tolist() == [[1.5, 6.0]]
        assert mean.tolist() == [5.0]
        assert numbers == [1.0, 7.0]
        assert rows.tolist() == [rank, rank + 2, rank + 4]


def test_a_batch_that_cannot_be_dealt_evenly_is_refused() -> None:
    Workers(0, 2).check(64)
    with pytest.raises(ConfigError, match=r"a multiple of the number of workers.*got 9 for 2"):
        Workers(0, 2).check(9)
    with pytest.raises(ConfigError, match="got 2 for 2 workers"):
        Workers(0, 2).check(2)


def test_one_process_alone_averages_nothing() -> None:
    assert Workers.of_process_group() == Workers(0, 1)
    assert Workers().average(nn.Linear(1, 1), [3.0]) == [3.0]

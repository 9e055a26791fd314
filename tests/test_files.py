"""Files appear whole or not at all; locks hold between processes and die with their holder."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runtime_pruning.files import (
    link_or_copy,
    link_tree,
    locked,
    replacing,
    save_tensors,
    write_text,
)

FORK = multiprocessing.get_context("fork")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing(path) as unfinished:
            unfinished.write_text("ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_file_has_the_rights_that_any_new_file_has(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_tensors_come_back_whatever_their_layout(tmp_path: Path) -> None:
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    save_tensors({"a": tensor.requires_grad_()}, tmp_path / "t.safetensors")
    assert torch.equal(load_file(tmp_path / "t.safetensors")["a"], tensor)


def test_a_second_name_outlives_the_first(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("content")
    link_or_copy(tmp_path / "one", tmp_path / "two")
    (tmp_path / "one").unlink()
    assert (tmp_path / "two").read_text() == "content"


def test_across_file_systems_it_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "one").write_text("content")
    link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "content"


def test_one_at_a_time_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    path, counter = tmp_path / "deep" / "lock", tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(50):
            with locked(path):
                counter.write_text(str(int(counter.read_text()) + 1))

    def die() -> None:
        with locked(path):
            os.kill(os.getpid(), signal.SIGKILL)

    children = [FORK.Process(target=target) for target in (count, die, count)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, -signal.SIGKILL, 0]
    assert counter.read_text() == "100"


def test_a_linked_tree_is_on_the_disk_once_and_replaces_what_has_other_names(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "bundle", tmp_path / "kept"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights").write_text("new")
    (target / "bundle" / "deep").mkdir(parents=True)
    old, other = target / "bundle" / "deep" / "weights", tmp_path / "other"
    old.write_text("old")
    os.link(old, other)
    for _ in range(2):
        link_tree(source, target)
        assert old.samefile(source / "deep" / "weights")
    assert other.read_text() == "old"
    link_tree(other, target)
    assert (target / "other").samefile(other)


def test_a_lock_that_nobody_waits_for_is_refused(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(BlockingIOError, match="is locked"),
        locked(tmp_path / "lock", wait=False),
    ):
        pass
    with locked(tmp_path / "lock", wait=False):
        pass

"""Preparation by Ray Train's workers, on the Ray of this test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from runtime_pruning.errors import UserError
from runtime_pruning.places import Place
from runtime_pruning.sweeping.checks import check_sweep
from runtime_pruning.sweeping.cluster_training import prepare_on_cluster
from runtime_pruning.sweeping.prepare import is_prepared, prepare
from runtime_pruning.sweeping.presets import load_preset

PRESETS = Path(__file__).parents[2] / "sweeps" / "presets"
SHORT = ("prepare.pretraining_epochs=1", "prepare.anywidth_epochs=1", "prepare.limit=128")

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_one_worker_makes_what_this_process_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    material = check_sweep(load_preset("digits", PRESETS, SHORT))
    cache = Place.at(tmp_path / "by-ray")
    assert not is_prepared(material, cache)
    found = prepare_on_cluster(material, cache)
    told = capsys.readouterr().out
    assert "Training, dense: epoch 1" in told
    assert "Training, any width: epoch 1" in told
    assert is_prepared(material, cache)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = prepare(material, tmp_path / "here", tell=lambda line: None)
    torch.set_num_threads(threads)
    assert found.key == expected.key
    for state in ("dense", "network"):
        one, other = (getattr(each, state).state_dict() for each in (found, expected))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert prepare_on_cluster(material, cache).key == found.key  # nothing is trained again
    assert capsys.readouterr().out == ""
    assert {path.name for path in (tmp_path / "by-ray").iterdir()} == {"locks", "dense", "anywidth"}


@pytest.mark.usefixtures("cluster")
def test_a_loss_that_is_no_number_is_told_once(tmp_path: Path) -> None:
    """Ray Train would try again what failed; this is the user's to mend. By two workers."""
    changes = (*SHORT, "prepare.lr=1e30", "resources.prepare.workers=2")
    material = check_sweep(load_preset("digits", PRESETS, changes))
    with pytest.raises(UserError, match=r"The loss is nan .* lower the learning rate"):
        prepare_on_cluster(material, Place.at(tmp_path))
    assert not is_prepared(material, Place.at(tmp_path))

"""What processes ask for: one GPU at most each, and a device for those only that asked."""

import os
from dataclasses import replace

import pytest
import torch

from runtime_pruning.config import build_config
from runtime_pruning.errors import ConfigError
from runtime_pruning.resources import Request, Resources


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trial": {"gpus": 8}}, "`0 <= gpus <= 1` must hold, since a process uses one GPU"),
        ({"trial": {"cpus": 0}}, "`cpus > 0` must hold, but got 0."),
        ({"control": {"workers": 2}}, "`1 <= workers <= 1` must hold, but got 2."),
        ({"env_runner": {"workers": -1}}, "`0 <= workers` must hold, but got -1."),
        ({"learner": {"gpus": 1}}, "`workers >= 1` must hold for learners on GPUs, but got 0"),
        ({"max_failures": -2}, "`max_failures >= -1` must hold, but got -2."),
        ({"trial": {"gpu": 1}}, "has no setting 'gpu'. Did you mean 'gpus'?"),
        ({"gpus": 1}, "has no setting 'gpus' any more: it is `resources.trial.gpus` now."),
        ({"cpus": 1}, "it is `resources.trial.cpus` now."),
        ({"cpus_per_env_runner": 1}, "it is `resources.env_runner.cpus` now."),
    ],
)
def test_what_no_process_can_use_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Resources, values, where="resources")
    assert message in str(caught.value)


def test_each_kind_keeps_its_own_defaults() -> None:
    found = build_config(
        Resources, {"env_runner": {"workers": 2}, "learner": {"workers": 1}}, where="resources"
    )
    asked = [(each.cpus, each.gpus) for each in found.trial_processes(trains_agent=True)]
    assert asked == [(1.0, 0.0), (0.5, 0.0), (0.5, 0.0), (1.0, 0.0)]
    assert found.trial_processes(trains_agent=False) == [found.trial]


def test_requests_as_ray_reads_them() -> None:
    request = Request(cpus=0.5, gpus=0.25)
    assert request.bundle == {"CPU": 0.5, "GPU": 0.25}
    assert request.options == {"num_cpus": 0.5, "num_gpus": 0.25}
    assert (request.device, replace(request, gpus=0).device) == ("cuda", "cpu")
    assert replace(request, gpus=0).bundle == {"CPU": 0.5}


def test_who_asked_for_no_gpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    threads = torch.get_num_threads()
    assert Request(cpus=2).use() == "cpu"
    assert torch.get_num_threads() == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert Request(cpus=0.5).use() == "cpu"
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_who_asked_for_a_gpu_and_sees_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r"must see one, but torch .* sees none here"):
        Request(gpus=1).use()

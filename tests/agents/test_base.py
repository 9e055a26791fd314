"""Environments run the network where the processes that sample are."""

import pytest

from runtime_pruning.agents.base import PruningProblem
from runtime_pruning.resources import AgentResources, EnvRunnerRequest


@pytest.mark.parametrize(
    ("runner", "device"),
    [
        (EnvRunnerRequest(workers=0), "cuda"),  # the trial's own process samples
        (EnvRunnerRequest(workers=2), "cpu"),
        (EnvRunnerRequest(workers=2, gpus=0.5), "cuda"),
    ],
)
def test_environments_follow_who_samples(runner: EnvRunnerRequest, device: str) -> None:
    resources = AgentResources(env_runner=runner)
    problem = PruningProblem(
        network=None, data=None, penalty=0.1, resources=resources, device="cuda"
    )
    assert problem.env_device == device

"""What the processes of a sweep ask of the cluster: one declaration, which all take theirs from.

Ray counts what is asked for and hides nothing: a process that asked for no GPU still sees those of
its node. So `Request.use` is the first thing that a process does.
"""

import os
from dataclasses import field
from typing import Annotated, ClassVar

from pydantic import Field

from runtime_pruning.config import Count, NotNegative, Positive, config_class
from runtime_pruning.errors import ConfigError


@config_class
class Request:
    """What each process of one kind asks for.

    Attributes:
        cpus: cores, or a share of one; torch computes on as many threads, one at least.
        gpus: a GPU, a share of one, or none: a process uses one at most.
        workers: processes.
    """

    least_workers: ClassVar[int] = 1
    most_workers: ClassVar[int | None] = 1

    cpus: Positive = 1.0
    gpus: NotNegative = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.gpus > 1:
            raise ValueError(
                "`0 <= gpus <= 1` must hold, since a process uses one GPU at most, but got "
                f"{self.gpus}."
            )
        most = self.most_workers
        if self.workers < self.least_workers or (most is not None and self.workers > most):
            rule = f"{self.least_workers} <= workers" + ("" if most is None else f" <= {most}")
            raise ValueError(f"`{rule}` must hold, but got {self.workers}.")

    @property
    def device(self) -> str:
        """The torch device that such a process computes on: the one GPU that it sees, or none."""
        return "cuda" if self.gpus else "cpu"

    @property
    def bundle(self) -> dict[str, float]:
        """What a placement group reserves for such a process."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def options(self) -> dict[str, float]:
        """What ``ray.remote`` is told of such a process."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}

    def use(self) -> str:
        """Keep this process to what it asked for, and return its device.

        Raises:
            ConfigError: it asked for a GPU, and torch sees none.
        """
        import torch  # takes seconds, which checking a configuration need not

        torch.set_num_threads(max(1, int(self.cpus)))
        if not self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        elif not torch.cuda.is_available():
            raise ConfigError(
                f"A process that asked for {self.gpus:g} GPU must see one, but torch "
                f"{torch.__version__} sees none here: is it a build for CUDA?"
            )
        return self.device


@config_class
class PrepareRequest(Request):
    """What each worker of the preparation asks for; each has an equal share of a batch."""

    most_workers: ClassVar[int | None] = None


@config_class
class TimingRequest:
    """What the timing of a point asks for: a node's cores to itself, whatever it uses of them.

    Attributes:
        threads: that torch computes on; part of every latency's name.
        gpus: 1 times on a GPU.
    """

    threads: Count = 1
    gpus: Annotated[int, Field(ge=0, le=1)] = 0

    def whole_node(self, cpus: float) -> Request:
        """Return the request of all cores of a node that has so many."""
        return Request(cpus=cpus, gpus=self.gpus)


@config_class
class EnvRunnerRequest(Request):
    """What each env runner asks for; without any, the trial's own process samples."""

    least_workers: ClassVar[int] = 0
    most_workers: ClassVar[int | None] = None

    cpus: Positive = 0.5
    workers: int = 0


@config_class
class LearnerRequest(Request):
    """What each learner asks for; without any, the trial's own process learns, on the CPU."""

    least_workers: ClassVar[int] = 0
    most_workers: ClassVar[int | None] = None

    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus and not self.workers:
            raise ValueError(
                "`workers >= 1` must hold for learners on GPUs, but got 0: without workers the "
                "agent learns in the trial's own process, on its CPU."
            )


@config_class
class AgentResources:
    """What an agent in training asks for beside the process that trains it."""

    env_runner: EnvRunnerRequest = field(default_factory=EnvRunnerRequest)
    learner: LearnerRequest = field(default_factory=LearnerRequest)

    @property
    def processes(self) -> list[Request]:
        """The request of each process, one by one."""
        runner, learner = self.env_runner, self.learner
        return [runner] * runner.workers + [learner] * learner.workers


@config_class
class Resources:
    """What a sweep asks of the cluster.

    Attributes:
        prepare: the training of the network that all trials start from.
        trial: a trial's own process: the backbone's fine-tuning, the measuring, and what of
            sampling and learning has no workers of its own.
        env_runner, learner: of a trial whose method trains an agent.
        control: each control, proof and reading of the test split.
        timing: each timing of a point, which has its node's cores to itself.
        concurrent: trials at once; None lets the cluster's size decide.
        max_failures: how often a trial that died is started again from its last point.
    """

    __moved__: ClassVar[dict[str, str]] = {
        "cpus": "resources.trial.cpus",
        "gpus": "resources.trial.gpus",
        "cpus_per_env_runner": "resources.env_runner.cpus",
    }

    prepare: PrepareRequest = field(default_factory=PrepareRequest)
    trial: Request = field(default_factory=Request)
    env_runner: EnvRunnerRequest = field(default_factory=EnvRunnerRequest)
    learner: LearnerRequest = field(default_factory=LearnerRequest)
    control: Request = field(default_factory=Request)
    timing: TimingRequest = field(default_factory=TimingRequest)
    concurrent: Count | None = None
    max_failures: Annotated[int, Field(ge=-1)] = 2

    @property
    def agent(self) -> AgentResources:
        """What an agent asks for."""
        return AgentResources(env_runner=self.env_runner, learner=self.learner)

    def trial_processes(self, *, trains_agent: bool) -> list[Request]:
        """Return the request of each process of a trial, its own first."""
        return [self.trial, *(self.agent.processes if trains_agent else [])]

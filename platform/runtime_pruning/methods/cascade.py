"""Cascades: members run one after the other on an image until the combined answer is good enough.

Members are operating points, so that a cascade's facts follow from theirs: no network runs but to
measure members. Answers are combined and choosers found on the policy split; which points are worth
having is seen on validation, as of every method.

Sources: Wang et al., "Wisdom of Committees", ICLR 2022 (thresholds on confidence); Mnih et al.,
2015 (DQN), here RLlib's own, told the penalty; Longstaff and Schwartz, 2001 (regression of gains).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from safetensors.torch import load_file

from pruning_envs import CascadeTable, PenaltyRange
from pruning_envs.cascade_table import MOST_MEMBERS
from runtime_pruning.agents.cascade_dqn import CascadeDQNSettings, train_cascade_dqn
from runtime_pruning.cascades import (
    Chooser,
    Combination,
    QChooser,
    QNetwork,
    Rule,
    ThresholdChooser,
    align,
    cascade_record,
    fit_combination,
    fit_regression,
    judge,
    search_thresholds,
)
from runtime_pruning.config import Count, config_class
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.deploy.cascade_bundle import write_cascade_bundle
from runtime_pruning.errors import ConfigError
from runtime_pruning.files import save_tensors
from runtime_pruning.methods.base import (
    CalibratedConfig,
    Effort,
    KnownPoint,
    Method,
    Report,
    Sources,
    Task,
    register,
)
from runtime_pruning.methods.cascade_members import (
    Elsewhere,
    Member,
    chosen,
    find_elsewhere,
    gather,
)

AGENT = "chooser.safetensors"
USUAL = PenaltyRange(0.03, 1.0)
TRIED = 256  # threshold cascades that penalties choose among


@config_class
class CascadeConfig(CalibratedConfig):
    """Settings of the method.

    Attributes:
        chooser: who decides: ``threshold`` (one number per member, searched), ``regression`` (of
            what a further member gains), or ``dqn`` (RLlib's; one agent is told the penalty).
        members: sources, see `cascade_members`; ids of finished sweeps among them.
        backbones: trained networks that are members, too, see `cascade_members`.
        most: members at most; of more, some are taken that others do not beat, evenly by cost.
        subset: which of these take part, by number from 0, cheapest first: ``0-2-3``; all if empty.
        combine: how answers are made one, see `Rule`.
        penalty: loss that a unit of cost is worth, cost 1 being the dense network's; a range is
            divided by ``dials``. None: .03 to 1, or, by thresholds, what no other cascade beats.
        dials: operating points of a trial, at most.
        agent: how the DQN agent learns.
    """

    chooser: Literal["threshold", "regression", "dqn"] = "threshold"
    members: tuple[str, ...] = ("own",)
    backbones: tuple[str, ...] = ()
    most: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] = 4
    subset: Annotated[str, Field(pattern=r"^(\d(-\d)*)?$")] = ""
    combine: Rule = "weighted"
    penalty: float | PenaltyRange | None = None
    dials: Count = 8
    agent: CascadeDQNSettings = field(default_factory=CascadeDQNSettings)

    def __post_init__(self) -> None:
        if not self.members and not self.backbones:
            raise ValueError("`members` or `backbones` must name a source, but both are empty.")
        if self.penalty is not None and PenaltyRange.of(self.penalty).low <= 0:
            raise ValueError(f"`penalty > 0` must hold, but got {self.penalty}.")

    @property
    def penalties(self) -> tuple[float, ...]:
        """The penalties that choosers are found for, dearest first."""
        wanted = USUAL if self.penalty is None else PenaltyRange.of(self.penalty)
        if wanted.low == wanted.high:
            return (wanted.low,)
        return tuple(np.geomspace(wanted.high, wanted.low, self.dials).tolist())


@register("cascade")
class Cascade(Method[CascadeConfig]):
    """Operating points along the curve of one set of members."""

    config_type = CascadeConfig
    trains_agent = True

    @classmethod
    def prepare(cls, config: CascadeConfig, sources: Sources) -> Elsewhere | None:
        """Return members of other sweeps and trained backbones, read and checked."""
        return find_elsewhere(config.members, config.backbones, sources)

    def fit(self, task: Task, config: CascadeConfig, report: Report) -> None:
        """Measure the members, find choosers on the policy split, report what they make."""
        found = gather(task, config.members, config.calibration_batches, report)
        members = _subset(chosen(found, config.most), config.subset)
        answers = align([member.point.policy for member in members])
        made = fit_combination(answers, config.combine)
        table = made.table(answers, float(dense_macs(task.dense)))
        spent = _together(members)
        choosers, learned = _choosers(table, task, config)
        save = _saver(choosers)
        for chooser in choosers[task.points_done :]:
            point = cascade_point(members, made, chooser, task)
            report.known(point, spent + learned, save_state=save)


def cascade_point(
    members: Sequence[Member], made: Combination, chooser: Chooser, task: Task
) -> KnownPoint:
    """Return the operating point that a cascade is, from its members' facts.

    Members that a threshold cascade never runs are left out.
    """
    if isinstance(chooser, ThresholdChooser):
        members = [members[number] for number in chooser.order]
        made = made.of(chooser.order)
        chooser = replace(chooser, order=tuple(range(len(members))))
    points = [member.point for member in members]
    write = partial(
        write_cascade_bundle,
        members=[point.write_bundle for point in points],
        combination=made,
        chooser=chooser,
        backbone=task.backbone,
    )
    return KnownPoint(
        validation=cascade_record([point.validation for point in points], made, chooser),
        policy=cascade_record([point.policy for point in points], made, chooser),
        groups=task.network.groups,
        write_bundle=write,
        penalty=getattr(chooser, "penalty", None),
    )


def _subset(members: list[Member], text: str) -> list[Member]:
    """Return the members that are numbered.

    Raises:
        ConfigError: there are fewer.
    """
    if not text:
        return members
    numbers = sorted({int(number) for number in text.split("-")})
    if numbers[-1] >= len(members):
        raise ConfigError(
            f"`subset` numbers {len(members)} members from 0, but got {text!r}; they are "
            f"{[member.name for member in members]}."
        )
    return [members[number] for number in numbers]


def _together(members: Sequence[Member]) -> Effort:
    """Return what making members has cost; widths of one network are paid for once."""
    total = Effort()
    for effort in dict.fromkeys(member.effort for member in members):
        total += effort
    return total


def _choosers(
    table: CascadeTable, task: Task, config: CascadeConfig
) -> tuple[Sequence[Chooser], Effort]:
    """Return choosers, cheapest first, and what learning them has cost."""
    started = time.monotonic()
    if config.chooser == "threshold":
        return _by_threshold(table, config), Effort()
    if config.chooser == "regression":
        choosers = [
            fit_regression(table, penalty, loss=config.agent.loss, seed=task.seed)
            for penalty in config.penalties
        ]
        return choosers, Effort()
    settings = _agent_settings(task, config)
    network = _resumed(task)
    if network is None:
        network = train_cascade_dqn(table, settings, task.resources)
    spent = Effort(env_steps=settings.env_steps, train_seconds=time.monotonic() - started)
    return [QChooser(network, penalty) for penalty in config.penalties], spent


def _by_threshold(table: CascadeTable, config: CascadeConfig) -> list[Chooser]:
    """Return the cascades that no other beats, or the best at each penalty.

    One that runs a single member is that member's own point, and left out where others are left.
    """
    if config.penalty is None:
        found = search_thresholds(table, points=max(2, config.dials))
    else:
        tried = search_thresholds(table, points=TRIED)
        judged = [judge(table, chooser) for chooser in tried]
        best = [
            max(range(len(tried)), key=lambda at: judged[at].accuracy - penalty * judged[at].cost)
            for penalty in config.penalties
        ]
        found = [tried[at] for at in dict.fromkeys(best)]
    several = [chooser for chooser in found if len(chooser.order) > 1]
    return list(several or found)


def _agent_settings(task: Task, config: CascadeConfig) -> CascadeDQNSettings:
    wanted = USUAL if config.penalty is None else PenaltyRange.of(config.penalty)
    return replace(config.agent, penalty_low=wanted.low, penalty_high=wanted.high, seed=task.seed)


def _saver(choosers: Sequence[Chooser]) -> Callable[[Path], None] | None:
    """Return what keeps an agent's network; other choosers are found again in seconds."""
    first = choosers[0]
    if not isinstance(first, QChooser):
        return None

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(first.network.state_dict(), folder / AGENT)

    return write


def _resumed(task: Task) -> QNetwork | None:
    """Return the agent's network of an interrupted run."""
    if task.resume is None:
        return None
    tensors = load_file(task.resume / AGENT)
    trunk = [
        tensor for name, tensor in tensors.items() if name.endswith("weight") and "trunk" in name
    ]
    network = QNetwork(
        trunk[0].shape[1],
        [weight.shape[0] for weight in trunk],
        tensors["advantage.weight"].shape[0],
    )
    network.load_state_dict(tensors)
    return network.eval()

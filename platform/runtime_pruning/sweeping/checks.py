"""Everything that can be refused is refused here, before Ray starts."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runtime_pruning import backbones, datasets, methods
from runtime_pruning.config import build_config
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import ImageDataset
from runtime_pruning.errors import ConfigError, ContractError, did_you_mean
from runtime_pruning.methods import Method, Sources
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.sweeping.config import SweepConfig
from runtime_pruning.testing.contract import BATCH, ELSEWHERE, Clause, try_clauses

CALIBRATION = "calibration_batches"
CLAUSE_MACS = 1_000_000_000  # of one pass over the images that a clause is tried on, about


@dataclass(frozen=True, kw_only=True)
class Material:
    """A checked sweep with what it needs.

    Attributes:
        sweep: the configuration.
        method: the class of the method that is swept.
        data: the dataset's four splits.
        network: the backbone with its initial weights, traced at the finest group count.
    """

    sweep: SweepConfig
    method: type[Method[Any]]
    data: ImageDataset
    network: PrunableNetwork

    def prepare_method(self, folder: Path, store: str, weights_dir: Path | None) -> Any:
        """Return what the method's trials share, see `Method.prepare`."""
        config = method_config(self.sweep, self.method, next(_corners(self.sweep)))
        sources = Sources(data=self.data, folder=folder, store=store, weights_dir=weights_dir)
        return self.method.prepare(config, sources)


def check_sweep(
    sweep: SweepConfig, *, data_dir: Path | None = None, weights_dir: Path | None = None
) -> Material:
    """Load what a sweep names, and try each end of its search space.

    Args:
        sweep: the configuration.
        data_dir: where a dataset's files lie; None asks ``RUNTIME_PRUNING_DATA``.
        weights_dir: where published weights lie; None asks ``RUNTIME_PRUNING_WEIGHTS``.

    Raises:
        UserError: an unknown name, a setting outside its range, data or weights that are missing,
            or a backbone that cannot be traced with a group count.
    """
    method = methods.get(sweep.method)
    for control in sweep.controls:
        methods.get(control)
    backbones.get(sweep.backbone)
    check_settings(sweep, method)
    data = datasets.load(sweep.dataset, data_dir, sweep.dataset_settings)
    backbone = backbones.create(
        sweep.backbone,
        num_classes=len(data.info.classes),
        image_shape=data.info.image_shape,
        weights_dir=weights_dir,
        pretrained=sweep.prepare.pretrained,
        seed=sweep.prepare_seed,
    )
    *_, network = (
        trace(
            backbone,
            data.info.image_shape,
            groups=groups,
            align=sweep.align,
            streams=sweep.streams,
        )
        for groups in sweep.group_counts
    )
    check_statistics(sweep, method, network)
    return Material(sweep=sweep, method=method, data=data, network=network)


def check_contract(material: Material, seconds: float = 30.0) -> list[Clause]:
    """Try the contract on the network that the sweep is about; return what was not tried in time.

    What trains for hours and is shipped answers alike in every way of running it, compiled ones
    included. Another process is not tried: Ray sends the network to one soon enough.

    Args:
        material: the checked sweep.
        seconds: a clause whose turn comes later is not tried.

    Raises:
        ContractError: clauses are broken; names them.
    """
    network, name = material.network, material.sweep.backbone
    images = max(2, min(BATCH, CLAUSE_MACS // dense_macs(network)))
    clauses = [*try_clauses(network, images=images, seconds=seconds, without=(ELSEWHERE,))]
    broken = [f"{clause.name!r}: {clause.reason}" for clause in clauses if clause.passed is False]
    if broken:
        raise ContractError(f"The network of {name!r} breaks its contract. {' '.join(broken)}")
    return [clause for clause in clauses if clause.passed is None]


def check_settings(sweep: SweepConfig, method: type[Method[Any]]) -> None:
    """Build the method's configuration at each end of the search space.

    Raises:
        ConfigError: a dimension that is no setting of the method, a value that it refuses, or
            workers that it does not start.
    """
    known = [field.name for field in fields(method.config_type)]
    for name in sweep.search:
        if name != "groups" and name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"`search.{name}` is no setting of {sweep.method!r}.{hint}")
    agent = sweep.resources.agent
    if agent.processes and not method.trains_agent:
        raise ConfigError(
            "`resources.env_runner.workers` and `resources.learner.workers` must be 0 where the "
            f"method trains no agent, as {sweep.method!r}, but got {agent.env_runner.workers} and "
            f"{agent.learner.workers}."
        )
    if sweep.proof.points and not method.plans_groups:
        raise ConfigError(
            f"`proof.points` must be 0 where points are no plans of groups, as of "
            f"{sweep.method!r}, but got {sweep.proof.points}: no plan can be dealt to other images."
        )
    for params in _corners(sweep):
        method_config(sweep, method, params)


def check_statistics(
    sweep: SweepConfig, method: type[Method[Any]], network: PrunableNetwork
) -> None:
    """Raise where batch norm would keep the statistics of other widths than those that run.

    Raises:
        ConfigError: ``calibration_batches`` is 0 somewhere, and the network has batch norm.
    """
    if not any(isinstance(module, NORMS) for module in network.modules()):
        return
    chosen = [
        getattr(method_config(sweep, method, params), CALIBRATION, None)
        for params in _corners(sweep)
    ]
    proof = sweep.proof.calibration_batches
    for where, batches in [("settings", each) for each in chosen] + [("proof", proof)]:
        if batches == 0:
            raise ConfigError(
                f"`{where}.{CALIBRATION} >= 1` must hold where the backbone has batch norm, as "
                f"{sweep.backbone!r}, but got 0: its statistics are of other widths."
            )


def control_config(sweep: SweepConfig, control: type[Method[Any]]) -> Any:
    """Return a control's configuration: of the sweep's settings, those that it has, too."""
    known = {field.name for field in fields(control.config_type)}
    shared = {name: value for name, value in sweep.settings.items() if name in known}
    return build_config(control.config_type, shared, where="A control")


def method_config(sweep: SweepConfig, method: type[Method[Any]], params: dict[str, Any]) -> Any:
    """Return the method's configuration for one trial's sampled parameters.

    Raises:
        ConfigError: the method refuses a setting.
    """
    chosen = {name: value for name, value in params.items() if name not in ("groups", "seed")}
    return build_config(
        method.config_type, {**sweep.settings, **chosen}, where=f"Method {sweep.method!r}"
    )


def _corners(sweep: SweepConfig) -> Iterator[dict[str, Any]]:
    """Yield parameters that together visit each dimension's ends, one dimension at a time."""
    ends = {
        name: dimension if isinstance(dimension, tuple) else dimension.ends
        for name, dimension in sweep.search.items()
    }
    base = {name: values[0] for name, values in ends.items()}
    yield base
    for name, values in ends.items():
        for value in values[1:]:
            yield {**base, name: value}

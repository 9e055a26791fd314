"""An exported bundle of a real, small network, with a dial of three stops."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.datasets import ImageDataset, load
from runtime_pruning.deploy import write_bundle
from runtime_pruning.deploy.card import Card
from runtime_pruning.deploy.export import Origin, Shipment, export_bundle
from runtime_pruning.frontier.points import Provenance, derive
from runtime_pruning.methods.recording import measure
from runtime_pruning.network import PrunableNetwork, trace
from runtime_pruning.network.policies import FixedPolicy, Policy
from runtime_pruning.network.trainer import TrainConfig
from runtime_pruning.network.training import recalibrate_batch_norm, train

SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Exported:
    """What was exported, and where to."""

    folder: Path
    card: Card
    shipments: tuple[Shipment, ...]
    origin: Origin
    data: ImageDataset


def export_digits(folder: Path) -> Exported:
    """Export digits narrow, wide at two sites, and at full width, the last chosen."""
    data = load("digits")
    backbone = backbones.create("digits-cnn", num_classes=10, image_shape=SHAPE, seed=0)
    network = trace(backbone, SHAPE, groups=2, align=4).condition_batch_norm()
    config = TrainConfig(epochs=3, batch_size=64, lr=0.05, pad=1, flip=False, any_width=True)
    train(network, data.training, config)
    shipments = []

    def add(policy: Policy, own: PrunableNetwork) -> None:
        index = len(shipments)
        shipments.append(shipment(policy, own, data, folder / "points" / str(index), index))

    narrow = FixedPolicy([1] * 3)
    add(narrow, network)
    add(FixedPolicy([4, 4, 2]), network.regroup(4, 4))  # cut otherwise: it shares no file
    recalibrate_batch_norm(network, data.training, narrow, 4)
    add(FixedPolicy([2] * 3), network)
    origin = Origin(
        dataset="digits",
        settings={},
        classes=data.info.classes,
        images_NCHW=data.validation.images_NCHW[:64],
        licence="CC0-1.0",
        provenance={"mlflow_run": "abc"},
    )
    chosen = shipments[2]
    card = export_bundle(folder / "bundle", shipments, chosen.point.point_id, origin, chosen.record)
    return Exported(folder / "bundle", card, tuple(shipments), origin, data)


def shipment(
    policy: Policy, network: PrunableNetwork, data: ImageDataset, folder: Path, index: int
) -> Shipment:
    """Measure and store one operating point, as a sweep does."""
    write = partial(write_bundle, network=network.eval(), policy=policy)
    write(folder, backbone="digits-cnn", align=4)
    record, _ = measure(network, policy, data.validation, 256, content=data.content_hash())
    provenance = Provenance(
        sweep_id="s",
        config={"method": "fixed-width"},
        index=index,
        method="fixed-width",
        backbone="digits-cnn",
        dataset="digits",
        seed=0,
        groups=2,
        dense_macs=dense_macs(network),
        penalty=[0.8, 0.2, 0.1][index],
    )
    return Shipment(folder=folder, point=derive(record, provenance), record=record)

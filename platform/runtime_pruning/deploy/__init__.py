"""Shipping an operating point: everything that is needed to run it again, in one folder."""

from runtime_pruning.deploy.bundle import (
    Bundle,
    PolicyKind,
    policy_kinds,
    read_network_bundle,
    write_bundle,
)
from runtime_pruning.deploy.cascade_bundle import (
    CascadeBundle,
    ChooserKind,
    chooser_kinds,
    write_cascade_bundle,
)
from runtime_pruning.deploy.deployed import DeployedBundle, DeployedCascade, deploy_bundle
from runtime_pruning.deploy.reading import AnyBundle, read_bundle
from runtime_pruning.deploy.shipped import Prediction, ShippedBundle, load_bundle
from runtime_pruning.deploy.timing import BundleTiming, time_bundle

__all__ = [
    "AnyBundle",
    "Bundle",
    "BundleTiming",
    "CascadeBundle",
    "ChooserKind",
    "DeployedBundle",
    "DeployedCascade",
    "PolicyKind",
    "Prediction",
    "ShippedBundle",
    "chooser_kinds",
    "deploy_bundle",
    "load_bundle",
    "policy_kinds",
    "read_bundle",
    "read_network_bundle",
    "time_bundle",
    "write_bundle",
    "write_cascade_bundle",
]

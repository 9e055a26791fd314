"""Shipping an operating point: everything that is needed to run it again, in one folder."""

from runtime_pruning.deploy.bundle import (
    Bundle,
    PolicyKind,
    policy_kinds,
    read_bundle,
    write_bundle,
)
from runtime_pruning.deploy.timing import BundleTiming, time_bundle

__all__ = [
    "Bundle",
    "BundleTiming",
    "PolicyKind",
    "policy_kinds",
    "read_bundle",
    "time_bundle",
    "write_bundle",
]

"""What a plan costs."""

from runtime_pruning.cost.catalogue import CostFactory, get, names, register

__all__ = ["CostFactory", "get", "names", "register"]

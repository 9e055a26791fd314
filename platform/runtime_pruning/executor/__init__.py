"""The compiled executor: what is shipped and timed.

From bottom to top: `native` (the C++ library), `commands` (tables of native calls), `ir` (the
operations of a network), `kernels` (the calls of an operation), `program` (operations bound to
widths), `batching` (ways to run images of unlike plans), and `deployed`, which chooses among them.
"""

from runtime_pruning.executor.deployed import (
    DEPLOYED_MODES,
    DeployedMode,
    DeployedNetwork,
    deploy,
)

__all__ = ["DEPLOYED_MODES", "DeployedMode", "DeployedNetwork", "deploy"]

"""Wait until a Ray cluster has so many nodes: ``python cluster/wait_for_nodes.py 4``.

The cluster is the one that ``RAY_ADDRESS`` names. Exit code 1 after five minutes without them.
"""

import sys
import time

import ray

PATIENCE_S = 300.0


def wait(count: int, patience_s: float = PATIENCE_S) -> int:
    """Return how many nodes live once there are ``count``, or when patience ends."""
    ends = time.monotonic() + patience_s
    while True:
        try:
            ray.init(logging_level="ERROR")
            break
        except ConnectionError:
            if time.monotonic() > ends:
                return 0
            time.sleep(2.0)
    while (alive := sum(node["Alive"] for node in ray.nodes())) < count:
        if time.monotonic() > ends:
            break
        time.sleep(1.0)
    return alive


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    living = wait(wanted)
    print(f"{living} of {wanted} nodes have joined.")
    raise SystemExit(int(living < wanted))

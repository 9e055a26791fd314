"""Run thousands of networks that are put together by chance, and count what is right.

``python tests/benchmarks/random_networks.py --networks 5000 --seed 0`` prints how many answer alike
in every mode, how many are refused and why, and each that is wrong or crashes, shrunk by nobody:
give its spec to `check` of tests/executor/random_networks.py.
"""

import argparse
import collections
import re
import sys
import time
from pathlib import Path

import hypothesis
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "executor"))
from random_networks import Spec, check, specs
from runtime_pruning.errors import ContractError


def main() -> int:
    """Print the counts; return 1 if a network was wrong or crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    told: collections.Counter[str] = collections.Counter()
    begun = time.perf_counter()

    def run(spec: Spec) -> None:
        found = outcome(spec)
        told[found] += 1
        if told.total() % 250 == 0:
            print(f"{told.total()} networks, {told['right']} of them right", flush=True)
        if found.startswith(("wrong", "crashed")):
            print(f"{found}\n    {spec}", flush=True)

    every = settings_of(arguments.networks)
    hypothesis.seed(arguments.seed)(every(hypothesis.given(specs())(run)))()
    for reason, count in told.most_common():
        print(f"{count:6} {reason}")
    print(f"{told.total()} networks in {time.perf_counter() - begun:.0f} s")
    return int(any(reason.startswith(("wrong", "crashed")) for reason in told))


def outcome(spec: Spec) -> str:
    """Return what came of a network, in words that are the same for alike outcomes."""
    try:
        found = check(spec)
    except (AssertionError, ContractError) as error:
        return "wrong: " + re.sub(r"\d\S*", "..", str(error).splitlines()[0])
    except Exception as error:
        return f"crashed: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return found if found == "right" else "refused: " + re.sub(r"'[^']*'", "...", found)[:90]


def settings_of(networks: int) -> hypothesis.settings:
    """Return hypothesis' settings: so many networks, none of them shrunk or kept."""
    return hypothesis.settings(
        max_examples=networks,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[*hypothesis.HealthCheck],
    )


if __name__ == "__main__":
    sys.exit(main())

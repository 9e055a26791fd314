"""The command line of a sweep: check, prepare, sweep, draw."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime_pruning.errors import ContractError, RuntimePruningError, UserError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # as shells say it of what SIGINT ended


def main(argv: Sequence[str] | None = None, *, py_modules: Sequence[Path], presets: Path) -> int:
    """Run a sweep; return the exit code.

    It is 0, 1 if a trial failed for good, 2 for bad input, 130 if it was interrupted.

    Args:
        argv: arguments; None takes the process's.
        py_modules: package folders that the workers need.
        presets: the folder of named presets.
    """
    arguments = _parser().parse_args(argv)
    # Importing Ray and MLflow takes seconds, which `--help` need not.
    from runtime_pruning.sweeping.run import run_sweep

    try:
        return run_sweep(arguments, py_modules=py_modules, presets=presets)
    except (UserError, ContractError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except RuntimePruningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="frontier.py",
        description="Sweep runtime pruning and draw the accuracy-cost frontier.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--preset", default="digits", help="a name in sweeps/presets, or a YAML file")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting of the preset: --set trials=12 --set settings.rounds=3",
    )
    add("--backbone", help="in place of the preset's")
    add("--dataset", help="in place of the preset's")
    add("--trials", type=int, help="in place of the preset's")
    add("--seed", type=int, help="in place of the preset's")
    add(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        dest="plugins",
        help="import this module first, beside the preset's plugins, here and on every worker",
    )
    add("--data-dir", type=Path, help="folder of the dataset (or RUNTIME_PRUNING_DATA)")
    add("--weights-dir", type=Path, help="folder of weights (or RUNTIME_PRUNING_WEIGHTS)")
    add("--results", type=Path, help="folder for results (or RUNTIME_PRUNING_RESULTS)")
    add("--prepare-only", action="store_true", help="train what trials start from, and stop")
    add("--sweep-id", default=None, help="the same id again goes on with an interrupted sweep")
    return parser

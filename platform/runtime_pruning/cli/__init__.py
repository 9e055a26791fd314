"""The command line: ``runtime-pruning``, one file per group of commands.

A module imports what its commands need inside of them: `--help` and completion answer at once, and
a command that ships a network needs no Ray.
"""

from runtime_pruning.cli.app import main

__all__ = ["main"]

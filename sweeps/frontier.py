#!/usr/bin/env python3
"""Sweep runtime pruning over a backbone and draw its accuracy-cost frontier.

It is `runtime-pruning sweep`, where nothing but requirements.txt is installed.

Run:     python sweeps/frontier.py --preset digits
         ray job submit --working-dir . -- sweeps/frontier.py --preset digits
Expect:  one line per operating point, a table of the frontier, results/<sweep id>/frontier.html
         and .png, and the same in MLflow (`make ui`).
"""

import sys

import _bootstrap  # noqa: F401  it makes the packages importable
from runtime_pruning.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["sweep", *sys.argv[1:]]))

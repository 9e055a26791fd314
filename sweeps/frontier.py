#!/usr/bin/env python3
"""Sweep runtime pruning over a backbone and draw its accuracy-cost frontier.

Run:     python sweeps/frontier.py --preset digits
         ray job submit --working-dir . -- sweeps/frontier.py --preset digits
Expect:  one line per operating point, a table of the frontier, results/<sweep id>/frontier.html
         and .png, and the same in MLflow (`make ui`).
"""

import _bootstrap
from runtime_pruning.sweeping.main import main

if __name__ == "__main__":
    raise SystemExit(
        main(py_modules=_bootstrap.PY_MODULES, presets=_bootstrap.ROOT / "sweeps" / "presets")
    )

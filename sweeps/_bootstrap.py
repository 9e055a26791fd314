"""First import of every script: make the packages importable here and on every worker.

Under ``ray job submit --working-dir .`` nothing of this repository is installed, and an old
installation would silently run old code. So the two source roots go to the front of the driver's
path, and the packages travel to the workers as Ray ``py_modules``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PY_MODULES = (ROOT / "platform" / "runtime_pruning", ROOT / "envs" / "pruning_envs")

for module in PY_MODULES:
    source_root = str(module.parent)
    if source_root not in sys.path:
        # Behind the script's own folder, before everything installed.
        sys.path.insert(1, source_root)

"""First import of every script: make the packages importable here.

Under ``ray job submit --working-dir .`` nothing of this repository is installed, and an old
installation would silently run old code. So the two source roots go to the front of the driver's
path; `runtime-pruning sweep` sends the packages that it was imported from on to the workers.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

for folder in ("platform", "envs"):
    if (source_root := str(ROOT / folder)) not in sys.path:
        # Behind the script's own folder, before everything installed.
        sys.path.insert(1, source_root)

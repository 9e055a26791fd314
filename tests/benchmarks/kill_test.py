"""Random processes of a sweep are killed at random moments: does it lose a point, or double one?

    python tests/benchmarks/kill_test.py --runs 30 --out kills.json

Each run is a tiny digits sweep of its own on two raylets of this machine (and a server of MLflow,
where that is what dies): one process gets SIGKILL, and the sweep is started again until it ends.
Its points are held against those of a sweep that nothing happened to. What is killed goes round
the kinds; the moment is drawn from a seed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from killing import KINDS, killed, shares, stage, undisturbed


def main() -> int:
    """Print a line per run; write all as JSON; return 1 if a point was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-test-"))
    log, rows = folder / "log.txt", []
    expected, seconds = undisturbed(folder / "undisturbed", log)
    print(f"Undisturbed: {len(expected)} points in {seconds:.0f} s; log: {log}", flush=True)
    for number, share in shares(arguments.seed, arguments.runs).items():
        kind = KINDS[number % len(KINDS)]
        # Training takes the first part of a sweep; the others find it done.
        trained = None if kind == "Train worker" else folder / "undisturbed" / "prepared"
        after_s = share * seconds * (0.3 if kind == "Train worker" else 0.8)
        with stage(folder / f"run-{number}", log, prepared=trained) as made:
            found = killed(made, kind, after_s, expected)
        shutil.rmtree(folder / f"run-{number}")
        rows.append(asdict(found))
        print(number, rows[-1], flush=True)
        if arguments.out is not None:
            told = {"points": len(expected), "undisturbed_s": round(seconds), "runs": rows}
            arguments.out.write_text(json.dumps(told, indent=2) + "\n")
    return int(any(row["lost"] or row["doubled"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

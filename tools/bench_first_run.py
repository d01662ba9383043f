"""Time the README's first command and say what it found.

    python tools/bench_first_run.py                 runs the default search in a new folder
    python tools/bench_first_run.py --run RUN       describes a finished run

Targets: 5 minutes on 2 cores, at least 8 subnets on the front, each verified.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hwsearch

TARGET_S, TARGET_SUBNETS = 300, 8


def describe(folder: Path) -> None:
    """Print what lies in a finished run."""
    run = hwsearch.Run(folder)
    front, trials = run.front, run.trials
    metric = run.objectives[0].name
    print(f"subnets on the front: {len(front)} (target: at least {TARGET_SUBNETS})")
    problems = [problem for problem in run.verify().values() if problem]
    print(f"verified again from their files: {len(front) - len(problems)} of {len(front)}")
    print(f"trials: {len(trials)}, failed: {(trials['state'] == 'failed').sum()}")
    for name in (metric, f"{metric}_report", "latency", "macs"):
        low, high = front[name].min(), front[name].max()
        print(f"{name}: {low:.4g} to {high:.4g} (x {high / low:.2f})")
    difference = front[f"{metric}_report"] - front[metric]
    print(
        f"report minus search {metric}: mean {difference.mean():+.2f}, "
        f"from {difference.min():+.2f} to {difference.max():+.2f}"
    )
    half = (front["latency_high"] - front["latency_low"]) / 2 / front["latency"]
    print(f"half-width of the latency intervals: median {100 * half.median():.1f}%")
    spent: dict[tuple[str, str], float] = {}
    for m in run.measurements():
        spent[m.purpose, m.quantity] = spent.get((m.purpose, m.quantity), 0.0) + m.cost_s
    for (purpose, quantity), seconds in spent.items():
        print(f"spent on {quantity} for {purpose}: {seconds:.0f} s")


def main() -> None:
    """Run or describe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a finished run; else a new one is made")
    args = parser.parse_args()
    if args.run:
        describe(args.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "first"
        begin = time.monotonic()
        subprocess.run([sys.executable, "-m", "hwsearch", "search", "--out", str(out)], check=True)
        print(f"hwsearch search: {time.monotonic() - begin:.0f} s (target: {TARGET_S} s)")
        describe(out)


if __name__ == "__main__":
    main()

"""Print the best top-1 that each tactic finds within a hard limit, on recorded ImageNet results.

    python tools/bench_limit.py                      within 250 M MACs, three seeds
    python tools/bench_limit.py --limit 350 --tactic additive hwsearch

Reads `../shared/bench` beside the repository, as `bench_search.py` does.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from search_problems import RECORDED, Recorded

import hwsearch
from hwsearch.errors import InfeasibleError
from hwsearch.optimizer import tactic_names

CHECKPOINTS = (25, 50, 100, 250)


def main() -> None:
    """Run the searches and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tactic", nargs="+", default=["additive", "hwsearch", "random"], choices=tactic_names()
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--limit", type=float, default=250.0, help="millions of MACs")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="folder of the results")
    args = parser.parse_args()
    problem = Recorded(args.recorded)
    reached = [n for n in CHECKPOINTS if n <= args.budget]
    print(
        f"best top-1 within {args.limit:g} M MACs after {', '.join(map(str, reached))} "
        "evaluations, share of them within it, time for each"
    )
    for tactic in args.tactic:
        for seed in range(args.seeds):
            line = _line(problem, tactic, seed, reached, args.limit)
            print(f"  {tactic:10s} seed {seed}   {line}", flush=True)


def _line(problem: Recorded, tactic: str, seed: int, reached: list[int], limit: float) -> str:
    started = time.perf_counter()
    try:
        trials = hwsearch.optimize(
            problem.space,
            problem.evaluate,
            problem.objectives,
            budget=reached[-1],
            seed=seed,
            tactic=tactic,
            constraints=[f"macs <= {limit * 1e6}"],
        ).trials
    except InfeasibleError as error:
        return str(error)
    own_s = time.perf_counter() - started
    inside = trials["feasible"].to_numpy(bool)
    top1 = np.where(inside, trials["top1"], -np.inf)
    best = [f"{top1[:n].max():.2f}" if inside[:n].any() else "   - " for n in reached]
    return f"{' / '.join(best)}   {inside.mean():.0%}   {own_s / len(trials) * 1e3:.0f} ms"


if __name__ == "__main__":
    main()

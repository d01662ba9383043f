"""Print the best top-1 that each tactic finds within a hard limit, on recorded ImageNet results.

    python tools/bench_limit.py                      within 250 M MACs, three seeds
    python tools/bench_limit.py --limit 350 --tactic additive hwsearch

Reads `../shared/bench` beside the repository, as `bench_search.py` does.
"""

import argparse
import sys
import time

from bench_search import BENCH, Yardstick, load_module, mobilenet_space

from hwsearch.objectives import Objective
from hwsearch.optimizer import Optimizer, tactic_names

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
    args = parser.parse_args()
    if not (BENCH / "run_dynast.py").is_file():
        sys.exit(f"{BENCH} holds no run_dynast.py: this benchmark needs the recorded results")
    yardstick = Yardstick(load_module(BENCH / "run_dynast.py"))
    reached = [n for n in CHECKPOINTS if n <= args.budget]
    print(
        f"best top-1 within {args.limit:g} M MACs after {', '.join(map(str, reached))} "
        "evaluations, share of them within it, the engine's own time for each"
    )
    for tactic in args.tactic:
        for seed in range(args.seeds):
            line = _line(yardstick, tactic, seed, reached, args.limit)
            print(f"  {tactic:10s} seed {seed}   {line}", flush=True)


def _line(yardstick: Yardstick, tactic: str, seed: int, reached: list[int], limit: float) -> str:
    objectives = [Objective("top1", "max"), Objective("macs", "min", exact=yardstick.macs)]
    optimizer = Optimizer(
        mobilenet_space(),
        objectives,
        seed=seed,
        tactic=tactic,
        constraints=[f"macs <= {limit}"],
    )
    best, own_s = [], 0.0
    history = optimizer.history
    for checkpoint in reached:
        while len(history.told) < checkpoint:
            started = time.perf_counter()
            archs = optimizer.ask(min(optimizer.batch, checkpoint - len(history.told)))
            own_s += time.perf_counter() - started
            values = [{"top1": top1} for top1 in yardstick.top1(archs)]
            optimizer.tell(archs, values)
        inside = history.feasible(history.values)
        best.append(f"{history.values[inside, 0].max():.2f}" if inside.any() else "   - ")
    share = history.feasible(history.values).mean()
    return f"{' / '.join(best)}   {share:.0%}   {own_s / len(history.told) * 1e3:.0f} ms"


if __name__ == "__main__":
    main()

"""Print how much hypervolume a search has after N evaluations, and what each costs beside them.

Searches go through `hwsearch.optimize`, as a user's do. The recorded problem needs
`../shared/bench` beside the repository, or another folder with its files.

    python tools/bench_search.py                                  the default tactic, five seeds
    python tools/bench_search.py --tactic hwsearch linas random   others beside it
    python tools/bench_search.py --peer ../venv-peer/bin/python   and DyNAS-T, in the same run
    python tools/bench_search.py --only others                    other spaces, known fronts
    python tools/bench_search.py --only bundled                   real subnets, three objectives

The interpreter after --peer needs the packages that the docstring of run_dynast.py there names.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from search_problems import RECORDED, Recorded, problems

import hwsearch
from hwsearch.objectives import FloatArray, hypervolume
from hwsearch.optimizer import Result, tactic_names
from hwsearch.space import Architectures

REFERENCE = {"top1": 70.0, "macs": 600.0}
CHECKPOINTS = (25, 50, 100, 250)
GOAL = 3000  # what LINAS has after 250


def main() -> None:
    """Run the searches and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tactic", nargs="+", default=["hwsearch"], choices=tactic_names())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=250)
    parser.add_argument("--only", choices=("recorded", "others", "bundled"))
    parser.add_argument("--peer", type=Path, help="interpreter that has DyNAS-T")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="folder of the results")
    args = parser.parse_args()
    if args.only in (None, "recorded"):
        recorded(args.tactic, range(args.seeds), args.budget, args.recorded, args.peer)
    if args.only in (None, "others"):
        others(args.tactic, range(args.seeds))
    if args.only == "bundled":
        bundled(args.tactic, range(args.seeds))


def recorded(
    tactics: Sequence[str], seeds: Sequence[int], budget: int, folder: Path, peer: Path | None
) -> None:
    """Search the recorded space, by our tactics and by DyNAS-T's LINAS."""
    problem = Recorded(folder)
    reached = [n for n in CHECKPOINTS if n <= budget]
    print(
        f"hypervolume to {REFERENCE} after {', '.join(map(str, reached))} evaluations; to {GOAL}"
    )
    for tactic in tactics:
        _print_seeds(tactic, (_search(problem, tactic, seed, budget) for seed in seeds), reached)
    if peer is not None:
        script = folder / "run_dynast.py"
        traces = (_peer_search(peer, script, seed, budget) for seed in seeds)
        _print_seeds("DyNAS-T LINAS", traces, reached)


def _print_seeds(
    name: str, traces: Iterable[tuple[FloatArray, float]], reached: Sequence[int]
) -> None:
    """Print hypervolumes after every evaluation, (budget,) of each seed, and ms per evaluation."""
    rows = []
    for seed, (volumes, own_ms) in enumerate(traces):
        enough = np.flatnonzero(volumes >= GOAL)
        first = enough[0] + 1 if len(enough) else np.inf
        rows.append([*(volumes[n - 1] for n in reached), first, own_ms])
        print(f"  {name:14s} seed {seed}   {_figures(rows[-1])}", flush=True)
    print(f"  {name:14s} median   {_figures(np.median(rows, axis=0))}", flush=True)


def _figures(row: Sequence[float]) -> str:
    *volumes, first, own_ms = row
    texts = " / ".join(f"{volume:.0f}" for volume in volumes)
    return f"{texts}   {GOAL} after {first:.0f}   {own_ms:.1f} ms an evaluation"


def _search(problem: Recorded, tactic: str, seed: int, budget: int) -> tuple[FloatArray, float]:
    """Hypervolumes after 1, 2, ... evaluations, and the search's own ms for each of them."""
    evaluation_s = 0.0

    def evaluate(archs: Architectures) -> list[dict[str, float]]:
        nonlocal evaluation_s
        started = time.perf_counter()
        values = problem.evaluate(archs)
        evaluation_s += time.perf_counter() - started
        return values

    started = time.perf_counter()
    result = hwsearch.optimize(
        problem.space, evaluate, problem.objectives, budget=budget, seed=seed, tactic=tactic
    )
    own_s = time.perf_counter() - started - evaluation_s
    values = result.trials[["top1", "macs"]].to_numpy(float) * [1.0, 1e-6]
    return _volumes(values), own_s / budget * 1e3


def _volumes(values: FloatArray) -> FloatArray:
    """Hypervolume of the first 1, 2, ... rows of (top-1, MACs)."""
    losses = values * [-1.0, 1.0]
    reference = np.array([-REFERENCE["top1"], REFERENCE["macs"]])
    return np.array([hypervolume(losses[: n + 1], reference) for n in range(len(losses))])


def _peer_search(python: Path, script: Path, seed: int, budget: int) -> tuple[FloatArray, float]:
    """The same of DyNAS-T's own LINAS, which may evaluate more than it was given."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as trace:
        command = [str(python), str(script), "--objective", "csv", "--tactic", "linas"]
        command += ["--num-evals", str(budget), "--seed", str(seed), "--out", trace.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows = [json.loads(line) for line in Path(trace.name).read_text().splitlines()]
    own_ms = float(done.stdout.split("engine_ms_per_eval=")[1].split()[0])
    values = np.array([[row["accuracy_top1"], row["macs"] / 1e6] for row in rows])
    return _volumes(values[:budget]), own_ms


def others(tactics: Sequence[str], seeds: Sequence[int], budget: int = 60) -> None:
    """Search other spaces, and print what share of random's gap to the ceiling is closed."""
    print(f"share of the gap that {budget} random evaluations leave, closed by as many")
    for problem in problems():
        for tactic in tactics:
            shares = []
            for seed in seeds:
                result = hwsearch.optimize(
                    problem.space,
                    problem.evaluate,
                    problem.objectives,
                    budget=budget,
                    seed=seed,
                    tactic=tactic,
                    batch=4,
                )
                found = problem.space.architectures(_mappings(result, problem.space.names))
                shares.append(problem.share_closed(found, seed))
            listed = ", ".join(f"{share:.2f}" for share in shares)
            print(f"  {problem.name:28s} {tactic:9s} {listed}   median {np.median(shares):.2f}")


def _mappings(result: Result, names: Sequence[str]) -> list[dict[str, object]]:
    """Choices of every trial, without the inactive ones."""
    rows = result.trials[list(names)].astype(object).to_dict("records")
    return [{name: value for name, value in row.items() if pd.notna(value)} for row in rows]


def bundled(tactics: Sequence[str], seeds: Sequence[int], budget: int = 60) -> None:
    """Search the bundled supernet by real accuracies and latencies, and by MACs."""
    print(f"hypervolume of real searches of the bundled supernet, {budget} evaluations")
    for seed in seeds:
        for tactic in tactics:
            with tempfile.TemporaryDirectory() as folder:
                run = hwsearch.search(
                    objectives=["top1", "latency", "macs"],
                    budget=budget,
                    tactic=tactic,
                    seed=seed,
                    prior="off",
                    out=Path(folder) / "run",
                )
                names = ["top1", "latency", "macs"]
                n_front, trials = len(run.front), run.trials_to_draw(run.setup())
                done = trials[trials["state"] == "done"][names].dropna().to_numpy(float)
            losses = done * [-1.0, 1.0, 1e-6]
            reference = np.array([-80.0, 2.0, 60.0])
            volumes = [
                hypervolume(losses[:n], reference) for n in (15, 30, 60) if n <= len(losses)
            ]
            texts = " / ".join(f"{volume:.0f}" for volume in volumes)
            print(f"  {tactic:9s} seed {seed}   {texts}   front {n_front}", flush=True)


if __name__ == "__main__":
    main()

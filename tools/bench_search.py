"""Print how much hypervolume a search has after N evaluations, on recorded results and elsewhere.

Reads `../shared/bench` beside the repository where it lies: an accuracy surrogate fitted on
published evaluations of OFA-MobileNetV3 subnets, and the closed form of their MACs.

    python tools/bench_search.py                                  the default tactic, five seeds
    python tools/bench_search.py --tactic hwsearch linas random   others beside it
    python tools/bench_search.py --peer ../venv-peer/bin/python   and DyNAS-T, in the same run
    python tools/bench_search.py --only others                    other spaces, known fronts
    python tools/bench_search.py --only bundled                   real subnets, three objectives

The interpreter after --peer needs the packages that the docstring of run_dynast.py there names.
"""

import argparse
import importlib.util
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from search_problems import problems

import hwsearch
from hwsearch.objectives import FloatArray, Objective, hypervolume
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.space import Architectures, Choice, SearchSpace

BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench"
DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
N_STAGES, N_BLOCKS = 5, 4
REFERENCE = {"top1": 70.0, "macs": 600.0}
CHECKPOINTS = (25, 50, 100, 250)
GOAL = 3000  # what LINAS has after 250


def mobilenet_space() -> SearchSpace:
    """Build OFA-MobileNetV3's 45 choices, about 2.2e19 architectures."""
    choices = []
    for stage in range(N_STAGES):
        depth = f"stage{stage + 1}.depth"
        choices.append(Choice(depth, DEPTHS))
        for block in range(N_BLOCKS):
            deep = tuple(d for d in DEPTHS if d > block)
            active = (depth, deep) if len(deep) < len(DEPTHS) else None
            name = f"stage{stage + 1}.block{block + 1}"
            choices.append(Choice(f"{name}.kernel", KERNELS, active))
            choices.append(Choice(f"{name}.expansion", EXPANSIONS, active))
    return SearchSpace(choices)


class Yardstick:
    """Accuracy and MACs of many architectures at once, the same as one by one there."""

    def __init__(self, recorded: ModuleType) -> None:
        self._surrogate = recorded.CsvSurrogate()
        self._macs_of = recorded.mbv3_macs_params
        self._blocks = self._block_macs()
        self._base = self._cost() - self._blocks[:, 0, 0].sum()

    def top1(self, archs: Architectures) -> FloatArray:
        """Top-1 in percent."""
        depth, kernel, expansion, active = _genes(archs)
        columns = []
        for block in range(N_STAGES * N_BLOCKS):
            for genes in (kernel, expansion):
                columns += [active[:, block] & (genes[:, block] == i) for i in range(3)]
        columns += [depth[:, stage] == i for stage in range(N_STAGES) for i in range(3)]
        features = np.array(columns, dtype=float).T
        surrogate = self._surrogate
        top1: FloatArray = surrogate.m.predict(features) * surrogate.sd + surrogate.mu
        return top1

    def macs(self, archs: Architectures) -> FloatArray:
        """Multiply-accumulates in millions: a constant and one addend per block."""
        _, kernel, expansion, active = _genes(archs)
        place = np.arange(N_STAGES * N_BLOCKS)
        addends = self._blocks[place, kernel, expansion]
        macs: FloatArray = self._base + np.where(active, addends, 0.0).sum(axis=1)
        return macs

    def _block_macs(self) -> FloatArray:
        """MACs by (block, kernel, expansion), from differences between whole networks.

        The smallest form of a block that no depth drops is part of the constant.
        """
        table = np.empty((N_STAGES * N_BLOCKS, 3, 3))
        for block in range(len(table)):
            stage, depth = divmod(block, N_BLOCKS)
            droppable = depth >= DEPTHS[0]
            with_it, without = (self._cost(stage=stage, depth=d) for d in (depth + 1, depth))
            for kernel, expansion in np.ndindex(3, 3):
                changed = self._cost(block=block, genes=(KERNELS[kernel], EXPANSIONS[expansion]))
                added = changed - self._cost()
                table[block, kernel, expansion] = added + droppable * (with_it - without)
        return table

    def _cost(
        self, *, stage: int = 0, depth: int = 4, block: int = 0, genes: tuple[int, int] = (3, 3)
    ) -> float:
        """MACs of the smallest blocks at full depth, but for one stage's depth and one block."""
        kernels, expansions = [KERNELS[0]] * 20, [EXPANSIONS[0]] * 20
        kernels[block], expansions[block] = genes
        depths = [DEPTHS[-1]] * N_STAGES
        depths[stage] = depth
        return float(self._macs_of({"ks": kernels, "e": expansions, "d": depths})[0]) / 1e6


def main() -> None:
    """Run the searches and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tactic", nargs="+", default=["hwsearch"], choices=tactic_names())
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=250)
    parser.add_argument("--only", choices=("recorded", "others", "bundled"))
    parser.add_argument("--peer", type=Path, help="interpreter that has DyNAS-T")
    args = parser.parse_args()
    if args.only in (None, "recorded"):
        recorded(args.tactic, range(args.seeds), args.budget, args.peer)
    if args.only in (None, "others"):
        others(args.tactic, range(args.seeds))
    if args.only == "bundled":
        bundled(args.tactic, range(args.seeds))


def recorded(tactics: Sequence[str], seeds: Sequence[int], budget: int, peer: Path | None) -> None:
    """Search the recorded space, by our tactics and by DyNAS-T's LINAS."""
    script = BENCH / "run_dynast.py"
    if not script.is_file():
        print(f"{BENCH} holds no run_dynast.py: nothing is measured on recorded results")
        return
    yardstick = Yardstick(load_module(script))
    reached = [n for n in CHECKPOINTS if n <= budget]
    print(
        f"hypervolume to {REFERENCE} after {', '.join(map(str, reached))} evaluations; to {GOAL}"
    )
    for tactic in tactics:
        _print_seeds(tactic, [_search(yardstick, tactic, seed, budget) for seed in seeds], reached)
    if peer is not None:
        traces = [_peer_search(peer, script, seed, budget) for seed in seeds]
        _print_seeds("DyNAS-T LINAS", traces, reached)


def _print_seeds(
    name: str, traces: Sequence[tuple[FloatArray, float]], reached: Sequence[int]
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


def _search(yardstick: Yardstick, tactic: str, seed: int, budget: int) -> tuple[FloatArray, float]:
    """Hypervolumes after 1, 2, ... evaluations, and the search's own ms for each of them."""
    objectives = [Objective("top1", "max"), Objective("macs", "min", exact=yardstick.macs)]
    optimizer = Optimizer(mobilenet_space(), objectives, seed=seed, tactic=tactic)
    own_s, n_told = 0.0, 0
    while n_told < budget:
        started = time.perf_counter()
        archs = optimizer.ask(min(optimizer.batch, budget - n_told))
        own_s += time.perf_counter() - started
        values = [{"top1": top1} for top1 in yardstick.top1(archs)]
        started = time.perf_counter()
        optimizer.tell(archs, values)
        own_s += time.perf_counter() - started
        n_told += len(archs)
    return _volumes(optimizer.history.values), own_s / budget * 1e3


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
                optimizer = Optimizer(problem.space, problem.objectives, seed=seed, tactic=tactic)
                names = [objective.name for objective in problem.objectives]
                while left := min(budget, problem.space.size) - len(optimizer.history.told):
                    archs = optimizer.ask(min(4, left))
                    rows = problem.values(archs).tolist()
                    optimizer.tell(archs, [dict(zip(names, r, strict=True)) for r in rows])
                shares.append(problem.share_closed(optimizer.history.told, seed))
            listed = ", ".join(f"{share:.2f}" for share in shares)
            print(f"  {problem.name:28s} {tactic:9s} {listed}   median {np.median(shares):.2f}")


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


def _genes(archs: Architectures) -> tuple[Any, Any, Any, Any]:
    """Option positions: depths (n, 5), kernels, expansions and whether active (n, 20)."""
    per_stage = archs.indices.reshape(len(archs), N_STAGES, 1 + 2 * N_BLOCKS)
    active = archs.active.reshape(per_stage.shape)[:, :, 1::2].reshape(len(archs), -1)
    kernel = per_stage[:, :, 1::2].reshape(len(archs), -1)
    expansion = per_stage[:, :, 2::2].reshape(len(archs), -1)
    return per_stage[:, :, 0], kernel, expansion, active


def load_module(path: Path) -> ModuleType:
    """Import a Python file from where it lies."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()

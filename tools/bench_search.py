"""Print how much hypervolume each tactic has after N evaluations, on recorded ImageNet results.

Reads `../shared/bench` beside the repository where it lies: an accuracy surrogate fitted on
published evaluations of OFA-MobileNetV3 subnets, and the closed form of their MACs.

    python tools/bench_search.py --tactic hwsearch random --seeds 5 --budget 250
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hwsearch.objectives import FloatArray, Objective
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.space import Architectures, Choice, SearchSpace

BENCH = Path(__file__).resolve().parents[2] / "shared" / "bench"
DEPTHS, KERNELS, EXPANSIONS = (2, 3, 4), (3, 5, 7), (3, 4, 6)
N_STAGES, N_BLOCKS = 5, 4
REFERENCE = {"top1": 70.0, "macs": 600.0}
CHECKPOINTS = (25, 50, 100, 250)
PUBLISHED = """for comparison, from the README of ../shared/bench (same surrogate):
  LINAS                     -  /   -  / 2606, 2773, 2781 / 3010, 2989, 3003   640 to 1,031 ms
  DyNAS-T evolutionary      -  /   -  /         -        / 2744, 2733, 2723
  DyNAS-T random            -  /   -  /         -        / 2657, 2815, 2691
  front of 40,000 direct evaluations                       3193"""


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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=250)
    args = parser.parse_args()
    if not (BENCH / "run_dynast.py").is_file():
        sys.exit(f"{BENCH} holds no run_dynast.py: this benchmark needs the recorded results")
    yardstick = Yardstick(load_module(BENCH / "run_dynast.py"))
    reached = [n for n in CHECKPOINTS if n <= args.budget] or [args.budget]
    print(
        f"hypervolume to (70% top-1, 600 M MACs) after {', '.join(map(str, reached))} evaluations"
    )
    for tactic in args.tactic:
        for seed in range(args.seeds):
            volumes, own_s = _search(yardstick, tactic, seed, reached)
            figures = " / ".join(f"{volume:.0f}" for volume in volumes)
            own_ms = own_s / reached[-1] * 1e3
            print(f"  {tactic:10s} seed {seed}   {figures}   {own_ms:.0f} ms", flush=True)
    print(PUBLISHED)


def _search(
    yardstick: Yardstick, tactic: str, seed: int, reached: list[int]
) -> tuple[list[float], float]:
    """Hypervolumes at the checkpoints, and the seconds that the search itself took."""
    objectives = [Objective("top1", "max"), Objective("macs", "min", exact=yardstick.macs)]
    optimizer = Optimizer(mobilenet_space(), objectives, seed=seed, tactic=tactic)
    n_told, own_s, volumes = 0, 0.0, []
    for checkpoint in reached:
        while n_told < checkpoint:
            started = time.perf_counter()
            archs = optimizer.ask(min(optimizer.batch, checkpoint - n_told))
            own_s += time.perf_counter() - started
            values = [{"top1": top1} for top1 in yardstick.top1(archs)]
            started = time.perf_counter()
            optimizer.tell(archs, values)
            own_s += time.perf_counter() - started
            n_told += len(archs)
        volumes.append(optimizer.hypervolume(REFERENCE))
    return volumes, own_s


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

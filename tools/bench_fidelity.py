"""Print what racing saves and what it loses: the same searches with and without it.

On the bundled supernet, outcomes per image are the real ones, measured once for each architecture
and kept in a file; seconds are those of building and scoring, the latter by its share of images.
On the scale of ImageNet, outcomes are simulated: top-1 is that of the surrogate in
`../shared/bench` (see `tools/bench_search.py`), images differ in difficulty, and each has a taste
of its own for every choice, so that similar subnets get the same images wrong.

    python tools/bench_fidelity.py bundled --outcomes outcomes.npz --seeds 3 --budget 100
    python tools/bench_fidelity.py simulated --images 10000 --seeds 3 --budget 100
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from bench_search import BENCH, Yardstick, load_module, mobilenet_space

from hwsearch.devices import load_device
from hwsearch.errors import EvaluationError
from hwsearch.evaluate import racing
from hwsearch.evaluate.sources import load_task
from hwsearch.objectives import Estimate, FloatArray, Objective
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.run.evaluation import Evaluator
from hwsearch.space import Architecture, Architectures
from hwsearch.supernets.zoo import load_supernet
from hwsearch.trials import MemoryStore

TOP1, MACS = 0, 1
# Cai et al., "Once-for-All", ICLR 2020: images for batch statistics.
SIMULATED_CALIBRATION = 2000
# Simulated subnets disagree about as often as the real ones of the bundled supernet do.
DIFFICULTY, TASTE, CHANCE = 1.0, 0.3, 0.08


class Bench(Protocol):
    """Architectures with known outcomes on every image, in the order of a race.

    Attributes:
        optimizer: Fresh, by tactic and seed.
        reference: Of the hypervolume.
        total: Images that a full score takes.
        calibration: Images that building takes.
        scale: From a mean outcome to the objective.
    """

    reference: Mapping[str, float]
    total: int
    calibration: int

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Return (n, total) outcomes, 0 or 1."""

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return what building and full scoring take."""


class Bundled:
    """The bundled supernet, by real outcomes.

    Args:
        path: Keeps outcomes, and what they took, over runs of this script.
    """

    reference: ClassVar = {"top1": 80.0, "macs": 60e6}

    def __init__(self, path: Path) -> None:
        self.net = load_supernet("cifar10-resnet")
        task = load_task(
            "bundled", self.net.input_spec(self.net.space.smallest()[0]), "cifar10-resnet"
        )
        assert task.calibration is not None
        self._evaluator = Evaluator(
            self.net, load_device("ort-cpu:threads=1"), task, MemoryStore()
        )
        self.total, self.calibration = len(task.search), len(task.calibration)
        self._order = racing.race_order(task.search.targets, seed=0)
        self._path = path
        self._known = dict(np.load(path)) if path.exists() else {}

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""
        macs = Objective("macs", "min", exact=partial(self.net.exact, "macs"))
        return Optimizer(
            self.net.space, [Objective("top1", "max"), macs], seed=seed, tactic=tactic
        )

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Measure what is not known yet; (n, total)."""
        return np.array([self._row(arch)[2:][self._order] for arch in archs])

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return what building and full scoring took."""
        build_s, score_s = self._row(arch)[:2]
        return float(build_s), float(score_s)

    def _row(self, arch: Architecture) -> FloatArray:
        if arch.key not in self._known:
            with tempfile.TemporaryDirectory() as scratch:
                begin = time.perf_counter()
                model = self._evaluator.write_model(arch, Path(scratch))
                built = time.perf_counter()
                scored = self._evaluator.outcomes({arch: model}, self._evaluator.task.search)[arch]
                if isinstance(scored, EvaluationError):
                    raise scored
            times = [built - begin, time.perf_counter() - built]
            self._known[arch.key] = np.array([*times, *scored.outcomes], np.float64)
            np.savez_compressed(self._path, **self._known)  # type: ignore[arg-type]
        return self._known[arch.key]


class Simulated:
    """OFA-MobileNetV3 with simulated outcomes, whose mean is what the surrogate says.

    Args:
        total: Images.
    """

    reference: ClassVar = {"top1": 70.0, "macs": 600.0}
    calibration = SIMULATED_CALIBRATION

    def __init__(self, total: int) -> None:
        self.total = total
        self._yardstick = Yardstick(load_module(BENCH / "run_dynast.py"))
        self._space = mobilenet_space()
        rng = np.random.default_rng(0)
        self._ease = (DIFFICULTY * rng.standard_normal(total)).astype(np.float32)
        options = sum(len(choice.options) for choice in self._space.choices)
        self._taste = rng.standard_normal((options, total)).astype(np.float32)

    def optimizer(self, tactic: str, seed: int) -> Optimizer:
        """Return a fresh search over (top1, macs)."""
        macs = Objective("macs", "min", exact=self._yardstick.macs)
        return Optimizer(self._space, [Objective("top1", "max"), macs], seed=seed, tactic=tactic)

    def outcomes(self, archs: Architectures) -> FloatArray:
        """Return the images that each answers best: as many as its top-1 says; (n, total)."""
        found = np.zeros((len(archs), self.total))
        for row, (arch, top1) in enumerate(zip(archs, self._yardstick.top1(archs), strict=True)):
            liking = self._one_hot(archs[[row]])[0] @ self._taste
            own = np.random.default_rng(int(arch.key, 16)).standard_normal(self.total)
            ease = self._ease + TASTE * liking / np.sqrt(len(self._space.choices)) + CHANCE * own
            found[row, np.argsort(-ease)[: round(top1 / 100 * self.total)]] = 1.0
        return found

    def seconds(self, arch: Architecture) -> tuple[float, float]:
        """Return 0: nothing is run."""
        del arch
        return 0.0, 0.0

    def _one_hot(self, archs: Architectures) -> FloatArray:
        parts = []
        for column, choice in enumerate(self._space.choices):
            chosen = archs.indices[:, column, None] == np.arange(len(choice.options))
            parts.append(chosen & archs.active[:, column, None])
        return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass
class Bill:
    """What a search cost and what it lost.

    Attributes:
        images: Scored.
        calibration: Images run for batch statistics.
        build_s: Seconds for building.
        score_s: Seconds for scoring.
        dropped: Candidates that were dropped.
        false: Dropped ones that nothing on the front dominated then.
        dominated: All that the front dominated then.
        volume: Hypervolume of the front.
    """

    images: int = 0
    calibration: int = 0
    build_s: float = 0.0
    score_s: float = 0.0
    dropped: int = 0
    false: int = 0
    dominated: int = 0
    volume: float = 0.0


def search(bench: Bench, tactic: str, seed: int, budget: int, *, raced: bool) -> Bill:
    """Run one search, with or without a race."""
    optimizer, bill, told = bench.optimizer(tactic, seed), Bill(), 0
    plan = racing.schedule(bench.total) if raced else []
    scored: dict[str, FloatArray] = {}
    while told < budget:
        archs = optimizer.ask(min(optimizer.batch, budget - told))
        front = optimizer.front()
        losses = optimizer.history.losses[optimizer.history.front]
        members = np.array([scored[key] for key in front.ids]).T
        values = []
        for arch, row in zip(archs, bench.outcomes(archs), strict=True):
            hopeful = np.array([np.nan, optimizer.history.exact(archs)[len(values), MACS]])
            rival = racing.find_rival(hopeful, losses, TOP1) if len(front) else None
            value, count = _race(row, members, rival, plan)
            values.append({"top1": value})
            build_s, score_s = bench.seconds(arch)
            bill.build_s += build_s
            bill.score_s += score_s * count / bench.total
            bill.images += count
            bill.calibration += bench.calibration
            lost = rival is not None and bool(row.mean() <= members[:, rival].mean())
            bill.dominated += lost
            if count < bench.total:
                bill.dropped += 1
                bill.false += not lost
            else:
                scored[arch.key] = row
        optimizer.tell(archs, values)
        told += len(archs)
    bill.volume = optimizer.hypervolume(bench.reference)
    return bill


def _race(
    row: FloatArray, members: FloatArray, rival: int | None, plan: list[racing.Look]
) -> tuple[float | Estimate, int]:
    """Score a candidate as far as needed: its top-1, and the images seen."""
    if plan and rival is not None:
        means = members.mean(axis=0)
        best, look = float(means[rival]), plan[0]
        while look is not None:
            part = row[: look.count], members[: look.count], means
            found = racing.paired_estimate(*part, len(row))
            if racing.chance_if_better(*part, best, len(row)) <= look.level:
                return Estimate(found.value * 100, found.deviation * 100), look.count
            look = racing.next_look(plan, look.count, found, best, len(row))
    return float(row.mean() * 100), len(row)


def main() -> None:
    """Run the searches, and print a line for each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", choices=["bundled", "simulated"])
    parser.add_argument("--outcomes", type=Path, default=Path("outcomes.npz"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--tactic", nargs="+", default=["hwsearch"], choices=tactic_names())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=100)
    args = parser.parse_args()
    if not (BENCH / "run_dynast.py").is_file() and args.bench == "simulated":
        sys.exit(f"{BENCH} holds no run_dynast.py: this benchmark needs the recorded results")
    bench: Bench = Bundled(args.outcomes) if args.bench == "bundled" else Simulated(args.images)
    print(f"{args.budget} evaluations on {bench.total} images each; {bench.calibration} calibrate")
    print("oracle: share of the images if the first look told which ones the front dominates")
    print("share of the cost: images scored; with calibration; seconds of scoring; with building")
    for tactic in args.tactic:
        for seed in range(args.seeds):
            full = search(bench, tactic, seed, args.budget, raced=False)
            raced = search(bench, tactic, seed, args.budget, raced=True)
            print(
                f"  {tactic:10s} seed {seed}   {_compared(full, raced, args.budget)}", flush=True
            )


def _compared(full: Bill, raced: Bill, budget: int) -> str:
    shares = [raced.images / full.images]
    shares.append(_share(raced, full, "images", "calibration"))
    if full.score_s:
        shares += [raced.score_s / full.score_s, _share(raced, full, "score_s", "build_s")]
    cost = " ".join(f"{share:.3f}" for share in shares)
    change = (raced.volume / full.volume - 1) * 100
    return (
        f"hypervolume {full.volume:.5g} -> {raced.volume:.5g} ({change:+.2f}%)   cost {cost}   "
        f"dropped {raced.dropped} of {raced.dominated} dominated, {raced.false} falsely   "
        f"oracle {1 - (1 - racing.LOOKS[0]) * raced.dominated / budget:.3f}"
    )


def _share(raced: Bill, full: Bill, *parts: str) -> float:
    return sum(getattr(raced, part) for part in parts) / sum(getattr(full, part) for part in parts)


if __name__ == "__main__":
    main()

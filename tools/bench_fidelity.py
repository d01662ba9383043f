"""Print what scoring some candidates on a part of the images saves, and what it loses.

Four ways to spend a budget of architectures, on the cases of `fidelity_cases.py`:

- whole: every candidate is scored on all images.
- race: the shipped one (`hwsearch.run.race`), which drops what the front dominates.
- wait: the rule of `fidelity_waiting.py`, which scores everything in part and completes what can
  still matter on the front.
- fewer: whole again, but of no more architectures than the images of `wait` pay for.

    python tools/bench_fidelity.py bundled --outcomes outcomes.npz --seeds 2 --budget 60
    python tools/bench_fidelity.py simulated --images 10000 --seeds 3 --budget 100 250
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bench_search import BENCH
from fidelity_cases import Bench, Bundled, Recorded, Simulated
from fidelity_waiting import FIRST_LOOK, Waiting

from hwsearch.objectives import FloatArray, hypervolume
from hwsearch.optimizer import Optimizer, tactic_names
from hwsearch.optimizer.optimizer import reference_losses
from hwsearch.run.race import Race
from hwsearch.space import Architectures
from hwsearch.trials import MemoryStore

TOLERANCE = 0.003  # of the hypervolume, that a front may lack


@dataclass
class Bill:
    """What a search cost and what it found.

    Attributes:
        images: Scored.
        calibration: Images run for batch statistics.
        seconds: Of building and scoring.
        dropped: Candidates that were dropped.
        false: Dropped ones that nothing on the front dominated then.
        dominated: All that the front dominated when they were proposed.
        volumes: Hypervolume of the front after each round, with how many were evaluated by then.
        front: ``(n, n_objectives)`` losses at the end.
    """

    images: int = 0
    calibration: float = 0.0
    seconds: float = 0.0
    dropped: int = 0
    false: int = 0
    dominated: int = 0
    volumes: list[tuple[int, float]] = field(default_factory=list)
    front: FloatArray = field(default_factory=lambda: np.empty((0, 2)))

    @property
    def volume(self) -> float:
        """At the end."""
        return self.volumes[-1][1]

    def volume_at(self, evaluated: float) -> float:
        """What the front was worth after so many evaluations."""
        return float(np.interp(evaluated, *zip(*self.volumes, strict=True)))


def search(bench: Bench, tactic: str, seed: int, budget: int, *, raced: bool) -> Bill:
    """Run one search with the shipped race, or without one."""
    optimizer, bill, told = bench.optimizer(tactic, seed), Bill(), 0
    evaluator = Recorded(bench, MemoryStore())
    race = Race(evaluator, optimizer.history, evaluator.task.search)
    while told < budget:
        archs = optimizer.ask(min(optimizer.batch, budget - told))
        evaluator.store.propose(archs, optimizer.rounds, tactic)
        (race.scores if raced else evaluator.search_scores)(evaluator.ready(archs))
        lost = _dominated(bench, optimizer, archs)
        values = []
        for key, is_lost in zip(archs.ids, lost, strict=True):
            dropped = race.dropped(key)
            scored = evaluator.remembered(key, "top1")
            values.append({"top1": dropped or (scored.value if scored else None)})
            bill.dominated += is_lost
            bill.dropped += dropped is not None
            bill.false += dropped is not None and not is_lost
        optimizer.tell(archs, values)
        told += len(archs)
        bill.volumes.append((told, optimizer.hypervolume(bench.reference)))
    measured = evaluator.store.measurements()
    bill.images = sum(m.details.get("images", m.count) for m in measured)
    bill.calibration = sum(m.details.get("calibrated", bench.calibration) for m in measured)
    bill.seconds = sum(m.cost_s for m in measured)
    bill.front = optimizer.history.losses[optimizer.history.front]
    return bill


def wait(bench: Bench, tactic: str, seed: int, budget: int) -> Bill:
    """Run one search by the rule of waiting."""
    optimizer, bill, told = bench.optimizer(tactic, seed), Bill(), 0
    rule = Waiting(bench, optimizer)
    while told < budget:
        archs = optimizer.ask(min(optimizer.batch, budget - told))
        optimizer.tell(archs, rule.scores(archs))
        told += len(archs)
    rule.finish()
    bill.volumes.append((told, optimizer.hypervolume(bench.reference)))
    bill.images, bill.calibration = rule.images, float(told * bench.calibration)
    return bill


def _dominated(bench: Bench, optimizer: Optimizer, archs: Architectures) -> list[bool]:
    """Which candidates the front of now dominates, once all their images are seen."""
    history = optimizer.history
    values = history.exact(archs)
    values[:, 0] = bench.outcomes(archs).mean(axis=1) * 100
    front = history.values[history.front]
    return [bool(((front[:, 0] >= v[0]) & (front[:, 1] <= v[1])).any()) for v in values]


def least_members(front: FloatArray, reference: FloatArray) -> int:
    """How many members, the greatest gain first, come within the tolerance of a whole front."""
    wanted = (1 - TOLERANCE) * hypervolume(front, reference)
    chosen: list[int] = []
    while len(chosen) < len(front):
        left = [row for row in range(len(front)) if row not in chosen]
        chosen.append(max(left, key=lambda row: hypervolume(front[[*chosen, row]], reference)))
        if hypervolume(front[chosen], reference) >= wanted:
            break
    return len(chosen)


def compare(bench: Bench, tactic: str, seed: int, budget: int) -> str:
    """Run all of them, and say how they compare."""
    whole = search(bench, tactic, seed, budget, raced=False)
    raced = search(bench, tactic, seed, budget, raced=True)
    waited = wait(bench, tactic, seed, budget)
    objectives = bench.optimizer(tactic, seed).objectives
    reference = reference_losses(bench.reference, objectives)
    counts = [len(whole.front), least_members(whole.front, reference)]
    oracles = [n / budget + (1 - n / budget) * FIRST_LOOK for n in counts]
    paid = budget * _cost(waited, whole)
    lines = [
        f"{tactic} seed {seed}, {budget} evaluations: whole {whole.volume:.5g}",
        f"  race   {_against(raced, whole)}{_seconds(raced, whole)}   dropped {raced.dropped} of "
        f"{raced.dominated} dominated, {raced.false} falsely",
        f"  wait   {_against(waited, whole)}",
        f"  fewer  {_change(whole.volume_at(paid), whole)} after {paid:.0f} evaluations",
        f"  oracle of wait: images {oracles[0]:.3f} where all {counts[0]} of the front are "
        f"completed, {oracles[1]:.3f} where {counts[1]} that hold {1 - TOLERANCE:.1%} of it are",
    ]
    return "\n".join(lines)


def _against(bill: Bill, whole: Bill) -> str:
    images = f"images {bill.images / whole.images:.3f}"
    return f"{_change(bill.volume, whole)}   {images}, with calibration {_cost(bill, whole):.3f}"


def _cost(bill: Bill, whole: Bill) -> float:
    return (bill.images + bill.calibration) / (whole.images + whole.calibration)


def _seconds(bill: Bill, whole: Bill) -> str:
    return f", seconds {bill.seconds / whole.seconds:.3f}" if whole.seconds else ""


def _change(volume: float, whole: Bill) -> str:
    return f"{volume:.5g} ({(volume / whole.volume - 1) * 100:+.2f}%)"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the searches, and print a paragraph for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=["bundled", "simulated"])
    parser.add_argument("--outcomes", type=Path, default=Path("outcomes.npz"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--tactic", nargs="+", default=["hwsearch"], choices=tactic_names())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, nargs="+", default=[100])
    args = parser.parse_args(argv)
    if not (BENCH / "run_dynast.py").is_file() and args.case == "simulated":
        sys.exit(f"{BENCH} holds no run_dynast.py: this benchmark needs the recorded results")
    bench: Bench = Bundled(args.outcomes) if args.case == "bundled" else Simulated(args.images)
    print(f"{len(bench.targets)} images score a candidate, {bench.calibration} calibrate it")
    for tactic in args.tactic:
        for budget in args.budget:
            for seed in range(args.seeds):
                print(compare(bench, tactic, seed, budget), flush=True)


if __name__ == "__main__":
    main()

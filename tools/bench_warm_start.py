"""What a second device costs once one has been searched: `--warm-start`, against a whole search.

    python tools/bench_warm_start.py                            threads=1, then threads=2
    python tools/bench_warm_start.py --second openvino:threads=1 --budget 100 --out runs/warm

Evaluation time is wall time from the first proposal to the last value: building, recalibrating,
scoring and timing, without the confirmation and the export that every run ends with. Target: a
tenth of the first device's. The fronts that the second device gets, reused and searched in whole,
are timed against each other in one job for their hypervolumes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import hwsearch
from hwsearch.objectives import hypervolume

TARGET = 0.1
EVALUATION = ("reuse", "search")
MARGIN = 1.1  # of the slowest member: the reference point


class Stopwatch:
    """A `Progress` that adds up the seconds of every phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase, self._began = "begin", time.perf_counter()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """End the phase before, and begin another."""
        del total, done
        self.stop()
        self._phase = name

    def stop(self) -> None:
        """End a phase."""
        now = time.perf_counter()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._began
        self._began = now

    def advance(self, steps: int = 1) -> None:
        """Show nothing."""

    def state(self, **figures: float | int | str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print it."""
        print(f"  {text}")


def search(title: str, out: Path, **settings: object) -> tuple[hwsearch.Run, Stopwatch]:
    """Search, and take the time of every phase."""
    print(f"{title}:")
    watch = Stopwatch()
    run = hwsearch.search(out=out, progress=watch, **settings)  # type: ignore[arg-type]
    watch.stop()
    return run, watch


def evaluation_s(watch: Stopwatch) -> float:
    """Seconds from the first proposal to the last value."""
    return sum(watch.seconds.get(phase, 0.0) for phase in EVALUATION)


def describe(title: str, run: hwsearch.Run, watch: Stopwatch, first_s: float) -> None:
    """Print what a run cost, without what it reused."""
    spent = {"top1": 0.0, "latency": 0.0}
    counts = dict.fromkeys(spent, 0)
    for m in run.measurements():
        if m.purpose == "search" and m.quantity in spent and "reused" not in m.details:
            spent[m.quantity] += m.cost_s
            counts[m.quantity] += 1
    seconds, whole = evaluation_s(watch), sum(watch.seconds.values())
    print(
        f"{title:<28} {counts['top1']:>4} scored in {spent['top1']:>6.1f} s, "
        f"{counts['latency']:>4} timed in {spent['latency']:>6.1f} s; evaluation "
        f"{seconds:>6.1f} s ({seconds / first_s:.3f} of the first), whole run {whole:>6.1f} s"
    )


def compared(runs: dict[str, hwsearch.Run], device: str) -> dict[str, float]:
    """Hypervolumes of fronts of one device, timed again in one job."""
    members = {
        row["key"]: (run.folder / row["subnet"] / "model.onnx", row["top1"])
        for run in runs.values()
        for row in run.front.to_dict("records")
    }
    timed = hwsearch.measure([path for path, _ in members.values()], device)["latency_ms"]
    latency = dict(zip(members, timed, strict=True))
    reference = [-min(top1 for _, top1 in members.values()), MARGIN * max(latency.values())]
    return {
        name: hypervolume(
            np.array([[-members[key][1], latency[key]] for key in run.front["key"]]), reference
        )
        for name, run in runs.items()
    }


def main() -> None:
    """Search the first device, then the second one twice."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", default="ort-cpu:threads=1", help="the device searched before")
    parser.add_argument("--second", default="ort-cpu:threads=2", help="the new device")
    parser.add_argument("--supernet", default="cifar10-resnet")
    parser.add_argument("--checkpoint", help="weights, where none ship")
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the runs stay; else they are removed")
    args = parser.parse_args()
    given = {"net": args.supernet, "checkpoint": args.checkpoint, "data": args.data}
    settings = {**given, "seed": args.seed}
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        budget = {"budget": args.budget}
        first = search("first device", out / "first", device=args.first, **budget, **settings)
        reused = search(
            "second device, reusing",
            out / "reused",
            device=args.second,
            warm_start=first[0].folder,
            **settings,
        )
        whole = search(
            "second device, whole", out / "whole", device=args.second, **budget, **settings
        )
        first_s = evaluation_s(first[1])
        print()
        describe(f"{args.first}", *first, first_s)
        describe(f"{args.second} by warm start", *reused, first_s)
        describe(f"{args.second} as a whole", *whole, first_s)
        volumes = compared({"reused": reused[0], "whole": whole[0]}, args.second)
    share = evaluation_s(reused[1]) / first_s
    print(f"evaluation time: {share:.3f} of the first device's (target: at most {TARGET})")
    print(f"hypervolume: {volumes['reused'] / volumes['whole']:.4f} of the whole search's")


if __name__ == "__main__":
    main()

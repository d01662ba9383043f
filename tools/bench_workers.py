"""Measure scheduling on a Ray cluster of several nodes on this machine.

    python tools/bench_workers.py [--tasks 160] [--nodes 4] [--seconds 2] [--out FILE]

Evaluations only sleep, so this measures scheduling and nothing else: the share of the throughput
of nodes that lose no time between two evaluations. Once nothing happens, and once a node is killed
(SIGKILL) when half of the evaluations are done; the ideal then is without that node from that
moment on, and repeats its job. Scheduler, queue, the resources of a job and the health checks are
those of a search.
"""

import argparse
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hwsearch.evaluation.evaluator import Values
from hwsearch.run.cluster.scheduler import JobResult, JobScheduler
from hwsearch.run.cluster.start_node import ENVIRONMENT, NODE
from hwsearch.run.progress import Silent
from hwsearch.space import Architecture, Choice, SearchSpace

HEADER = "| | took s | ideal s | share of ideal | ms per evaluation beside sleep |"


def sleep(seconds: float, *job: Any) -> JobResult:
    """Stand in for a job."""
    del job
    time.sleep(seconds)
    return JobResult()


class Sleeping:
    """Stands in for an evaluator: every architecture needs one job."""

    pace, net = SimpleNamespace(highest=0.0, known=0), None
    store = SimpleNamespace(add_all=lambda _: None)

    def __init__(self) -> None:
        self._submitted: set[str] = set()

    def known_values(self, arch: Architecture, quantities: Iterable[str]) -> Values:
        """Return no value the first time."""
        first = arch.key not in self._submitted
        self._submitted.add(arch.key)
        return {} if first else dict.fromkeys(quantities, 0.0)


def evaluate(
    cluster: Any, archs: Sequence[Architecture], seconds: float, kill_at: int | None = None
) -> tuple[float, float | None]:
    """Evaluate as a search does; return seconds, and the second at which a node was killed."""
    from hwsearch.run.cluster.connection import RayQueue

    scheduler = JobScheduler(RayQueue("none", seconds, Silent(), sleep), Sleeping(), ["sleep"])
    victim = next(iter(cluster.worker_nodes))
    killed: list[float] = []
    begin = time.perf_counter()

    def kill() -> None:
        cluster.remove_node(victim, allow_graceful=False)
        killed.append(time.perf_counter() - begin)

    killing = threading.Timer(seconds / 2, kill)  # in the middle of a job
    waiting, n_open, done = list(archs), 0, 0
    while waiting or n_open:
        while waiting and n_open < scheduler.capacity:
            scheduler.start([waiting.pop()])
            n_open += 1
        results = scheduler.finished()
        if failed := [each for each in results.values() if isinstance(each, Exception)]:
            raise failed[0]
        n_open, before, done = n_open - len(results), done, done + len(results)
        if kill_at is not None and before < kill_at <= done:
            killing.start()
    took = time.perf_counter() - begin
    scheduler.close()
    return took, killed[0] if killed else None


def ideal(n_tasks: int, n_nodes: int, seconds: float, killed_s: float | None) -> float:
    """Seconds that nodes take which go from one evaluation to the next in no time."""
    ends = [0.0] * n_nodes
    dies = [float("inf")] * (n_nodes - 1) + [float("inf") if killed_s is None else killed_s]
    left = n_tasks
    while left:
        node = min(range(len(ends)), key=ends.__getitem__)
        if ends[node] + seconds > dies[node]:
            ends[node] = float("inf")  # what it begins is done again by another one
            continue
        ends[node] += seconds
        left -= 1
    return max(end for end in ends if end < float("inf"))


def round_trip(n: int = 200) -> float:
    """Median milliseconds of tasks that do nothing, one after the other."""
    import ray

    from hwsearch.run.cluster.connection import remote

    nothing, spec, taken = remote(sleep, "nothing"), ray.put(0.0), []
    for _ in range(n):
        begin = time.perf_counter()
        ray.get(nothing.remote(spec))
        taken.append(time.perf_counter() - begin)
    return 1000 * sorted(taken)[n // 2]


def main() -> None:
    """Start a cluster, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=160)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    import ray
    from ray.cluster_utils import Cluster

    from hwsearch.run.cluster.connection import connect

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(args.nodes):
        cluster.add_node(num_cpus=1, resources={NODE: 1.0})
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    connect()
    lines = [
        f"scheduling only: {args.tasks} evaluations that sleep {args.seconds:g} s, {args.nodes} "
        f"Ray {ray.__version__} nodes on one machine of {os.cpu_count()} CPUs",
        "",
        HEADER,
        "| --- | --- | --- | --- | --- |",
    ]
    space = SearchSpace([Choice("number", tuple(range(args.tasks + 4 * args.nodes)))])
    archs = list(space.architectures([{"number": n} for n in range(space.size)]))
    evaluate(cluster, archs[args.tasks :], 0.1)  # the nodes' processes start
    for name, kill_at in (("undisturbed", None), ("a node killed", args.tasks // 2)):
        took, killed_s = evaluate(cluster, archs[: args.tasks], args.seconds, kill_at)
        best = ideal(args.tasks, args.nodes, args.seconds, killed_s)
        # Seconds of nodes that were there, over evaluations.
        there = args.nodes * took - (0.0 if killed_s is None else took - killed_s)
        beside = 1000 * (there / args.tasks - args.seconds)
        row = (f"{took:.1f}", f"{best:.1f}", f"{best / took:.3f}", f"{beside:.0f}")
        lines.append(f"| {name} | {' | '.join(row)} |")
    lines += ["", f"a task that does nothing, there and back: {round_trip():.1f} ms"]
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()

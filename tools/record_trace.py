"""Record how long models take, run by run, on an idle machine or beside other work.

    python tools/record_trace.py --out trace.npz [--beside one-core] [--seconds 150]

Models of 0.2 to 30 ms, each under two names in three sessions, and the anchors take turns in a
random order for as long as asked, as `hwsearch.devices.protocol` lets them. Kept is, for every
run, how long it took and how long the thread was not running meanwhile.
`tests/devices/replayed_machine.py` plays a trace back on a scripted clock, so that schedule and
statistics are tested on real noise.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

import hwsearch
from hwsearch.devices import MeasureSettings
from hwsearch.devices.anchor import anchors
from hwsearch.devices.fingerprint import choose_cpus
from hwsearch.devices.ort_runtime import declared_inputs
from hwsearch.devices.protocol import warm_up
from hwsearch.devices.worker import cpu_clock, synthetic_inputs, timed_run
from hwsearch.machine import usable_cpus

SCHEMA, SESSIONS = 2, 3
SUBNETS = (
    ("cifar10-resnet", 5, (0, 2, 4)),
    ("ofa-mbv3-w1.0", 3, (0,)),
    ("ofa-resnet50", 5, (0, 1)),
)
_LOOP = "while True: pass"
_COPY = (
    "import numpy as np\na = np.zeros(2**25)\nb = np.empty_like(a)\nwhile True: np.copyto(b, a)"
)
_COMPILE = "while true; do g++ -O2 -x c++ -c -o /dev/null {source} 2>/dev/null; done"
_SOURCE = "".join(f"#include <{name}>\n" for name in ("algorithm", "iostream", "map", "regex"))


def models() -> list[bytes]:
    """Return ONNX files of subnets, short to long."""
    files = []
    for name, n, chosen in SUBNETS:
        net = hwsearch.load_supernet(name, None if name == "cifar10-resnet" else "random:0")
        spread = net.space.sample_spread(n, seed=0)
        files += [hwsearch.to_onnx(net, spread[i]).SerializeToString() for i in chosen]
    return files


@contextmanager
def other_work(kind: str) -> Iterator[None]:
    """Run other work until the block ends."""
    python = [sys.executable, "-S", "-c", _LOOP]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.cpp"
        source.write_text(_SOURCE)
        commands = {
            "nothing": [],
            "one-core": [python],
            "two-cores": [python, python],
            "compiling": [["sh", "-c", _COMPILE.format(source=source)]] * 2,
            "copying": [[sys.executable, "-c", _COPY]],
        }[kind]
        running = [subprocess.Popen(command, start_new_session=True) for command in commands]
        # Where the scheduler lets them run on an otherwise idle machine.
        timed, others = choose_cpus(1), sorted({*usable_cpus()} - {*choose_cpus(1)})
        cpus = {"one-core": [others], "copying": [others], "two-cores": [others, timed]}
        for process, allowed in zip(running, cpus.get(kind, ()), strict=False):
            os.sched_setaffinity(process.pid, allowed or timed)
        try:
            time.sleep(1.0)
            yield
        finally:
            for process in running:
                os.killpg(process.pid, 9)
                process.wait()


def record(seconds: float) -> dict[str, np.ndarray]:
    """Return a trace: tenths of a microsecond, arrays of (rounds, runs of a turn) for every entry.

    ``run0``, ``off0``, ``run1`` ... are the running time and the time off the CPU of every run;
    ``model`` is each entry's number, the same for two names of one model, negative for anchors.
    """
    os.sched_setaffinity(0, choose_cpus(1))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    files = models()
    numbers = [*np.repeat(np.arange(len(files)), 2).tolist(), -1, -2]
    sources = [*(data for data in files for _ in "ab"), *anchors()]
    calls: list[list[Callable[[], object]]] = [[] for _ in sources]
    for index, data in [*enumerate(sources)] * SESSIONS:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feeds = synthetic_inputs(declared_inputs(session), 1)
        calls[index].append(partial(session.run, None, feeds))
    cpu_ns, begun = cpu_clock(), itertools.count()

    def play(turns: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        session = next(begun) % SESSIONS
        return [
            [timed_run(calls[index][session], time.perf_counter_ns, cpu_ns) for _ in range(n)]
            for index, n in turns
        ]

    def run(turns: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        return [np.array(times)[:, 0] / 1e9 for times in play(turns)]

    rng, rounds = np.random.default_rng(0), []
    turns = warm_up(run, len(calls), clock=time.monotonic, rng=rng, settings=MeasureSettings())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        order = rng.permutation(len(calls)).tolist()
        taken = dict(zip(order, play([(i, sum(turns[i])) for i in order]), strict=True))
        rounds.append([taken[index] for index in range(len(calls))])
    trace = {"schema": np.array(SCHEMA), "sessions": np.array(SESSIONS)}
    trace["model"] = np.array(numbers)
    trace["uncounted"] = np.array([each.uncounted for each in turns])
    for index in range(len(calls)):
        table = np.round(np.array([each[index] for each in rounds]) / 1e2).astype(np.uint32)
        trace[f"run{index}"], trace[f"off{index}"] = table[..., 0], table[..., 1]
    return trace


def main() -> None:
    """Parse, record, write, and say how restless it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("nothing", "one-core", "two-cores", "compiling", "copying")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--beside", choices=kinds, default="nothing")
    parser.add_argument("--seconds", type=float, default=150.0)
    args = parser.parse_args()
    with other_work(args.beside):
        trace = record(args.seconds)
    with tempfile.NamedTemporaryFile(dir=args.out.parent, suffix=".npz", delete=False) as file:
        np.savez_compressed(file, **trace)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(args.out)
    print(f"{len(trace['run0'])} rounds, {args.out.stat().st_size / 1e3:.0f} kB")
    for index, number in enumerate(trace["model"].tolist()):
        times, off = trace[f"run{index}"][:, trace["uncounted"][index] :], trace[f"off{index}"]
        low, middle = np.percentile(times, [10, 50]) / 1e4
        waited = off.sum() / (off.sum() + trace[f"run{index}"].sum())
        print(
            f"model {number}: 10% {low:.3f} ms, median {middle:.3f} ms, {waited:.0%} off the CPU"
        )


if __name__ == "__main__":
    main()

"""Worker process: loads and runs models with one runtime.

It imports numpy and the runtime alone, so that it starts fast, and a crash of the runtime ends
only this process. The parent's first message names the runtime. Each further request gets one
reply; a reply with an ``error`` field holds the reason of a refusal.
"""

import importlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.messages import Arrays, Header, read_message, write_message
from hwsearch.devices.prefix_execution import SegmentTree
from hwsearch.devices.run_timer import WaitingNs, schedstat_reader, timed_run
from hwsearch.devices.runtime import LoadedModel, Options, Runtime, TimedRun
from hwsearch.devices.synthetic_inputs import bind_synthetic, check_inputs


class Models:
    """Loaded models by the number that the parent gave each.

    ``waiting_ns`` reads the time spent waiting for a CPU; None where it is not recorded.
    """

    def __init__(self, runtime: Runtime, waiting_ns: WaitingNs | None) -> None:
        self._runtime = runtime
        self._waiting_ns = waiting_ns
        self._models: dict[int, LoadedModel] = {}
        self._modes: dict[int, Mapping[str, TimedRun]] = {}

    def answer(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Execute one request and return the reply."""
        operation, number = header["op"], header["id"]
        if operation == "load":
            return self._load(number, header, arrays)
        if operation == "time":
            return self._time(number, header["n"])
        if operation == "run":
            model = self._models[number]
            feeds = dict(zip(header["names"], arrays, strict=True))
            check_inputs(model.inputs, feeds)
            return {}, list(model.run(feeds))
        if operation == "run shared":
            return self._run_shared(header, arrays)
        if operation == "profile":
            return {}, [self._profiled_runs(number, header["n"])]
        if operation == "read profile":
            names, spent_s = self._models[number].profile()  # type: ignore[attr-defined] # may
            return {"nodes": names}, [spent_s]
        if operation == "unload":
            self._models.pop(number, None)
            self._modes.pop(number, None)
            return {}, []
        raise ValueError(f"unknown request {operation!r}")

    def _load(self, number: int, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        source = arrays[0].tobytes() if arrays else header["path"]
        batch: int | None = header["batch"]
        options: Options = header["options"]
        model = self._runtime.load(source, batch=batch, options=options)
        text = ""
        if batch is not None:
            feeds, bound = bind_synthetic(model, batch)
            self._modes[number] = bound.modes
            text = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feeds.items())
        self._models[number] = model
        return {"inputs": text}, []

    def _run_shared(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Run a tree of loaded segments on a batch and return the outputs of its ends."""
        segments = [self._models[number] for number in header["segments"]]
        tree = SegmentTree(segments, header["parents"], header["ends"])
        feeds = dict(zip(header["names"], arrays, strict=True))
        check_inputs(segments[0].inputs, feeds)
        outputs, seconds, errors = tree.run(feeds, header["size"], header["threads"])
        reply: Header = {"counts": [len(each) for each in outputs], "seconds": seconds}
        reply["errors"] = [[number, text] for number, text in errors.items()]
        return reply, [array for each in outputs for array in each]

    def _time(self, number: int, n: int) -> tuple[Header, Arrays]:
        """Time each mode ``n`` times: a (2, n) array of running and waiting seconds for each."""
        modes = self._modes[number]
        spent = [[self._timed(once) for _ in range(n)] for once in modes.values()]
        return {"modes": list(modes)}, [np.array(each, dtype=np.float64).T for each in spent]

    def _timed(self, once: TimedRun) -> tuple[float, float]:
        own_s: float | None = None

        def run() -> None:
            nonlocal own_s
            own_s = once()

        running, waiting = timed_run(run, time.perf_counter_ns, self._waiting_ns)
        return (running / 1e9, waiting / 1e9) if own_s is None else (own_s, 0.0)

    def _profiled_runs(self, number: int, n: int) -> NDArray[Any]:
        """Run the first mode ``n`` times: (2, n) seconds of wall time and of waiting in it."""
        once = next(iter(self._modes[number].values()))
        waiting_ns = self._waiting_ns or (lambda: 0)
        spent = []
        for _ in range(n):
            waiting, start = waiting_ns(), time.perf_counter_ns()
            once()
            took = time.perf_counter_ns() - start
            spent.append((took / 1e9, (waiting_ns() - waiting) / 1e9))
        return np.array(spent, dtype=np.float64).T


def _reasoned(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0][:500]
    named = isinstance(error, ValueError) or text.startswith("[ONNXRuntimeError]")
    return text if named else f"{type(error).__name__}: {text}"


def _requests(stream: BinaryIO) -> "queue.Queue[tuple[Header, Arrays]]":
    """Read requests in a thread that ends the process when the pipe from the parent ends.

    A hanging runtime releases the interpreter lock, and the pipe ends however the parent ends.
    """
    waiting: queue.Queue[tuple[Header, Arrays]] = queue.Queue()

    def read() -> None:
        try:
            while True:
                waiting.put(read_message(stream))
        finally:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for messages; all other output goes to stderr."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _pin(cpus: Sequence[int] | None) -> str:
    """Pin this process to CPUs and return them; "none" where the system does not support it."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return "none"
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return "none"
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def main() -> NoReturn:
    """Load and run models until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    requests, replies = _take_pipes()
    waiting = _requests(requests)
    first, _ = waiting.get()
    affinity = _pin(first["cpus"])  # before the runtime creates threads, which inherit it
    module, _, attribute = first["runtime"].partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), attribute)
    waiting_ns = schedstat_reader() if first["account"] else None
    included = "included" if waiting_ns is None else "taken out"
    about = {"version": runtime.version, "affinity": affinity, "waiting": included}
    write_message(replies, about)
    models = Models(runtime, waiting_ns)
    while True:
        header, arrays = waiting.get()
        try:
            write_message(replies, *models.answer(header, arrays))
        except OSError:
            sys.exit(0)
        except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
            write_message(replies, {"error": _reasoned(error)})


if __name__ == "__main__":
    main()

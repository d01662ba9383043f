"""The process in which a runtime loads and runs models.

It imports little, so that it starts in the time of numpy and the runtime alone, and whatever the
runtime does to its process stays in it. The parent's first frame says which runtime that is. Each
further request gets one reply; a reply with an ``error`` field says why it was refused.
"""

import importlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.frames import Arrays, Header, read_frame, write_frame
from hwsearch.devices.prefix_execution import Walk
from hwsearch.devices.run_timer import WaitedNs, timed_run, waited_by_schedstat
from hwsearch.devices.runtime import Declared, Feeds, LoadedModel, Once, Runtime, is_number

Answer = Callable[[Header, Arrays], tuple[Header, Arrays]]


class Models:
    """The models that are loaded, by the number that the parent gave each."""

    def __init__(self, runtime: Runtime, waited_ns: WaitedNs | None) -> None:
        self._runtime = runtime
        self._waited_ns = waited_ns
        self._models: dict[int, LoadedModel] = {}
        self._ways: dict[int, Mapping[str, Once]] = {}

    def answer(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Do what one request asks, and return the reply."""
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
        if operation == "walk":
            return self._walk(header, arrays)
        if operation == "profile":
            return {}, [self._noted(number, header["n"])]
        if operation == "profiled":
            names, spent_s = self._models[number].profile()  # type: ignore[attr-defined] # may
            return {"nodes": names}, [spent_s]
        if operation == "unload":
            self._models.pop(number, None)
            self._ways.pop(number, None)
            return {}, []
        raise ValueError(f"unknown request {operation!r}")

    def _load(self, number: int, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        source = arrays[0].tobytes() if arrays else header["path"]
        batch = header["batch"]
        model = self._runtime.load(source, batch=batch, options=header["options"])
        feeds = {}
        if batch is not None:
            feeds = synthetic_inputs(model.inputs, batch)
            self._ways[number] = model.bind(feeds)
        self._models[number] = model
        text = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feeds.items())
        return {"inputs": text}, []

    def _walk(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Run loaded parts on a batch; an output for each end, in the order of the parts."""
        parts = [self._models[number] for number in header["parts"]]
        walk = Walk(parts, header["before"], header["ends"])
        feeds = dict(zip(header["names"], arrays, strict=True))
        check_inputs(parts[0].inputs, feeds)
        outputs, seconds, errors = walk.run(feeds, header["size"], header["threads"])
        reply: Header = {"counts": [len(each) for each in outputs], "seconds": seconds}
        reply["errors"] = [[number, text] for number, text in errors.items()]
        return reply, [array for each in outputs for array in each]

    def _time(self, number: int, n: int) -> tuple[Header, Arrays]:
        """Time each way ``n`` times; for each a (2, n) array of running and waiting seconds."""
        ways = self._ways[number]
        spent = [[self._timed(once) for _ in range(n)] for once in ways.values()]
        return {"ways": list(ways)}, [np.array(each, dtype=np.float64).T for each in spent]

    def _timed(self, once: Once) -> tuple[float, float]:
        own_s: float | None = None

        def run() -> None:
            nonlocal own_s
            own_s = once()

        running, waiting = timed_run(run, time.perf_counter_ns, self._waited_ns)
        return (running / 1e9, waiting / 1e9) if own_s is None else (own_s, 0.0)

    def _noted(self, number: int, n: int) -> NDArray[Any]:
        """Run the first way ``n`` times, none repeated: (2, n) seconds in all and waiting."""
        once = next(iter(self._ways[number].values()))
        spent = []
        for _ in range(n):
            waited_before = self._waited_ns() if self._waited_ns else 0
            start = time.perf_counter_ns()
            once()
            took = time.perf_counter_ns() - start
            waited = self._waited_ns() if self._waited_ns else 0
            spent.append((took / 1e9, (waited - waited_before) / 1e9))
        return np.array(spent, dtype=np.float64).T


def check_inputs(declared: Sequence[Declared], feeds: Feeds) -> None:
    """Say which input is missing, unknown or of the wrong type; the runtime does not always.

    Raises:
        ValueError: One is.
    """
    wanted = {item.name: item.dtype for item in declared}
    for name, array in feeds.items():
        if name not in wanted:
            raise ValueError(f"the model has no input {name!r}; it has {', '.join(wanted)}")
        if str(array.dtype) != wanted[name]:
            raise ValueError(f"input {name!r} is {wanted[name]}, and {array.dtype} was given")
    if missing := wanted.keys() - feeds.keys():
        raise ValueError(f"no values were given for input {', '.join(sorted(missing))}")


def synthetic_inputs(declared: Sequence[Declared], batch: int) -> dict[str, NDArray[Any]]:
    """Create inputs from what a model declares: the same values every time.

    Floating-point inputs are standard normal; integers are 0 or 1, which every vocabulary, mask
    and segment input accepts.

    Args:
        declared: What a model declares.
        batch: What a symbolic first dimension becomes; a fixed one must already be equal to it.

    Raises:
        ValueError: An input has an unknown dimension beyond the first, another fixed batch, or a
            type that is no tensor of numbers; the text names it.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for item in declared:
        if not is_number(item.dtype):
            raise ValueError(f"input {item.name!r} has type {item.dtype}, not a tensor of numbers")
        shape = [_dimension(item, axis, batch) for axis in range(len(item.shape))]
        dtype = np.dtype(item.dtype)
        if dtype.kind == "f":
            feeds[item.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
        else:
            feeds[item.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _dimension(item: Declared, axis: int, batch: int) -> int:
    size, shape = item.shape[axis], list(item.shape)
    known = isinstance(size, int)
    if axis > 0 and not known:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: dimension {axis} ({size or 'unnamed'}) "
            "is unknown, and only the first may be; export the model with it fixed"
        )
    if axis == 0 and known and len(shape) > 1 and size != batch:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: its batch is fixed to {size}, and this "
            f"device runs batch {batch}; export it with a dynamic batch or use batch={size}"
        )
    return size if isinstance(size, int) else batch


def _reasoned(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0][:500]
    named = isinstance(error, ValueError) or text.startswith("[ONNXRuntimeError]")
    return text if named else f"{type(error).__name__}: {text}"


def _requests(stream: BinaryIO) -> "queue.Queue[tuple[Header, Arrays]]":
    """Read requests in a thread of its own, which ends the process when the parent is gone.

    A runtime that hangs releases the interpreter, so this works even then, and it needs no
    cooperation from the parent: the pipe ends when the parent does, however that happened.
    """
    waiting: queue.Queue[tuple[Header, Arrays]] = queue.Queue()

    def read() -> None:
        try:
            while True:
                waiting.put(read_frame(stream))
        finally:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for frames; what anything else prints goes to standard error."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _pin(cpus: Sequence[int] | None) -> str:
    """Keep this process on the CPUs; "none" where the system cannot or will not."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return "none"
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return "none"
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def _import(name: str) -> Runtime:
    module, _, attribute = name.partition(":")
    return cast(Runtime, getattr(importlib.import_module(module), attribute))


def serve(begin: Callable[[Header], tuple[Header, Answer]]) -> NoReturn:
    """Serve requests until the parent closes the pipe.

    Args:
        begin: Takes the parent's first frame; gives the reply to it, and what answers requests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    requests, replies = _take_pipes()
    waiting = _requests(requests)
    hello, _ = waiting.get()
    about, answer = begin(hello)
    write_frame(replies, about)
    while True:
        header, arrays = waiting.get()
        reply: Header
        try:
            reply, answers = answer(header, arrays)
            write_frame(replies, reply, answers)
        except OSError:
            sys.exit(0)
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the answer
            write_frame(replies, {"error": _reasoned(error)})


def _begin(hello: Header) -> tuple[Header, Answer]:
    affinity = _pin(hello["cpus"])  # before the runtime creates threads, which inherit it
    runtime = _import(hello["runtime"])
    waited_ns = waited_by_schedstat() if hello["account"] else None
    about = {"version": runtime.version, "affinity": affinity}
    about["waiting"] = "included" if waited_ns is None else "taken out"
    return about, Models(runtime, waited_ns).answer


def main() -> NoReturn:
    """Load and run models until the parent closes the pipe."""
    serve(_begin)


if __name__ == "__main__":
    main()

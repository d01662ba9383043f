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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.frames import Arrays, Header, read_frame, write_frame
from hwsearch.devices.prefix_execution import SegmentTree
from hwsearch.devices.run_timer import WaitingNs, schedstat_reader, timed_run
from hwsearch.devices.runtime import (
    Bound,
    Declared,
    Feeds,
    LoadedModel,
    Options,
    Runtime,
    TimedRun,
    is_number,
)

Answer = Callable[[Header, Arrays], tuple[Header, Arrays]]


class Models:
    """Loaded models by the number that the parent gave each.

    Args:
        runtime: Loads and runs them.
        waiting_ns: Reads the time spent waiting for a CPU; None where it is not recorded.
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
            feeds, bound = _bound(model, batch)
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
        """Run the first mode ``n`` times: (2, n) wall time and the waiting in it, seconds."""
        once = next(iter(self._modes[number].values()))
        waiting_ns = self._waiting_ns or (lambda: 0)
        spent = []
        for _ in range(n):
            waiting, start = waiting_ns(), time.perf_counter_ns()
            once()
            took = time.perf_counter_ns() - start
            spent.append((took / 1e9, (waiting_ns() - waiting) / 1e9))
        return np.array(spent, dtype=np.float64).T


def check_inputs(declared: Sequence[Declared], feeds: Feeds) -> None:
    """Check names and types of inputs, which not every runtime does.

    Raises:
        ValueError: An input is missing, unknown or of the wrong type.
    """
    wanted = {item.name: item.dtype for item in declared}
    for name, array in feeds.items():
        if name not in wanted:
            raise ValueError(f"the model has no input {name!r}; it has {', '.join(wanted)}")
        if str(array.dtype) != wanted[name]:
            raise ValueError(f"input {name!r} is {wanted[name]}, and {array.dtype} was given")
    if missing := wanted.keys() - feeds.keys():
        raise ValueError(f"no values were given for input {', '.join(sorted(missing))}")


def _bound(model: LoadedModel, batch: int) -> tuple[Feeds, Bound]:
    """Bind a model to synthetic inputs for which its outputs are no NaN.

    A model may take the logarithm or the root of its inputs, so that positive ones are tried too.

    Raises:
        ValueError: Outputs are NaN for both; the text names the output.
    """
    problem = ""
    for positive in (False, True):
        feeds = synthetic_inputs(model.inputs, batch, positive=positive)
        bound = model.bind(feeds)
        problem = _nan_output(bound.outputs)
        if not problem:
            return feeds, bound
    raise ValueError(
        f"{problem}, for standard normal inputs and for inputs between 0 and 1 alike: it was not "
        "timed, as its weights or operators make every answer meaningless"
    )


def _nan_output(outputs: Feeds) -> str:
    for name, array in outputs.items():
        n = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
        if n:
            return f"output {name!r} is NaN in {n:,} of {array.size:,} values"
    return ""


def synthetic_inputs(
    declared: Sequence[Declared], batch: int, *, positive: bool = False
) -> dict[str, NDArray[Any]]:
    """Create the inputs of timed runs, the same values every time.

    Floating-point inputs are standard normal; integers are 0 or 1, which every vocabulary, mask
    and segment input accepts; booleans are either.

    Args:
        declared: Declared inputs of a model.
        batch: Value of a symbolic first dimension; a fixed one must be equal to it.
        positive: Whether floating-point inputs are uniform from 0 to 1 instead.

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
            values = rng.random(shape) if positive else rng.standard_normal(shape)
            feeds[item.name] = np.asarray(values).astype(dtype)
        else:
            feeds[item.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _dimension(item: Declared, axis: int, batch: int) -> int:
    size, shape = item.shape[axis], list(item.shape)
    known = isinstance(size, int)
    if axis > 0 and not known:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: dimension {axis} ({size or 'unnamed'}) "
            "is not fixed, and only the first one may be open. Export the model with it fixed, or "
            f"fix it with: python -m onnxruntime.tools.make_dynamic_shape_fixed "
            f"{_fix(item, axis)} MODEL.onnx FIXED.onnx"
        )
    if axis == 0 and known and len(shape) > 1 and size != batch:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: its batch is fixed to {size}, and this "
            f"device runs batch {batch}; export it with a dynamic batch, or add batch={size} to "
            f"the device, as in ort-cpu:threads=1,batch={size}"
        )
    return size if isinstance(size, int) else batch


def _fix(item: Declared, axis: int) -> str:
    """Return the options of ONNX Runtime's tool that fix a dimension."""
    size = item.shape[axis]
    if isinstance(size, str):
        return f"--dim_param {size} --dim_value N"
    sizes = ",".join(str(each) if isinstance(each, int) else "N" for each in item.shape)
    return f"--input_name {item.name} --input_shape {sizes}"


def _reasoned(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0][:500]
    named = isinstance(error, ValueError) or text.startswith("[ONNXRuntimeError]")
    return text if named else f"{type(error).__name__}: {text}"


def _requests(stream: BinaryIO) -> "queue.Queue[tuple[Header, Arrays]]":
    """Read requests in a thread that ends the process when the pipe from the parent ends.

    A runtime that hangs releases the interpreter lock, and the pipe ends however the parent ends.
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
    """Keep the two pipes for messages; everything else that is printed goes to stderr."""
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _pin(cpus: Sequence[int] | None) -> str:
    """Pin this process to CPUs and return them; "none" where the system does not."""
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
        begin: Takes the parent's first message; returns the reply and the function that answers
            requests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
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
        except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
            write_frame(replies, {"error": _reasoned(error)})


def _begin(hello: Header) -> tuple[Header, Answer]:
    affinity = _pin(hello["cpus"])  # before the runtime creates threads, which inherit it
    runtime = _import(hello["runtime"])
    waiting_ns = schedstat_reader() if hello["account"] else None
    about = {"version": runtime.version, "affinity": affinity}
    about["waiting"] = "included" if waiting_ns is None else "taken out"
    return about, Models(runtime, waiting_ns).answer


def main() -> NoReturn:
    """Load and run models until the parent closes the pipe."""
    serve(_begin)


if __name__ == "__main__":
    main()

"""The process in which a runtime loads and runs models.

It imports little, so that it starts in the time of numpy and onnxruntime alone, and whatever the
runtime does to its process stays in it. One request frame gets one reply; a reply with an
``error`` field says why a request was refused.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.frames import Arrays, Header, read_frame, write_frame
from hwsearch.devices.stopwatch import WaitedNs, timed_run, waited_by_schedstat

_TENSORS = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


class Sessions:
    """The models that are loaded, by the number that the parent gave each."""

    def __init__(self, runtime: Any, waited_ns: WaitedNs | None) -> None:
        self._runtime = runtime
        self._waited_ns = waited_ns
        self._sessions: dict[int, Any] = {}
        self._feeds: dict[int, dict[str, NDArray[Any]]] = {}

    def answer(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Do what one request asks, and return the reply."""
        operation, number = header["op"], header["id"]
        if operation == "load":
            return self._load(number, header, arrays)
        if operation == "time":
            return {}, self._time(number, header["n"])
        if operation == "run":
            session = self._sessions[number]
            feeds = dict(zip(header["names"], arrays, strict=True))
            check_inputs(session.get_inputs(), feeds)
            return {}, list(session.run(None, feeds))
        if operation == "unload":
            self._sessions.pop(number, None)
            self._feeds.pop(number, None)
            return {}, []
        raise ValueError(f"unknown request {operation!r}")

    def _load(self, number: int, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = header["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = self._runtime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        session = self._runtime.InferenceSession(
            arrays[0].tobytes() if arrays else header["path"],
            options,
            providers=["CPUExecutionProvider"],
        )
        if header["batch"] is not None:
            self._feeds[number] = synthetic_inputs(session.get_inputs(), header["batch"])
        self._sessions[number] = session
        feeds = self._feeds.get(number, {})
        text = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feeds.items())
        return {"inputs": text}, []

    def _time(self, number: int, n: int) -> Arrays:
        session, feeds = self._sessions[number], self._feeds[number]
        names = [output.name for output in session.get_outputs()]
        timed = [
            timed_run(lambda: session.run(names, feeds), time.perf_counter_ns, self._waited_ns)
            for _ in range(n)
        ]
        return list(np.array(timed, dtype=np.float64).T / 1e9)


def check_inputs(declared: Sequence[Any], feeds: dict[str, NDArray[Any]]) -> None:
    """Say which input is missing, unknown or of the wrong type; the runtime does not always.

    Raises:
        ValueError: One is.
    """
    wanted = {item.name: _TENSORS.get(item.type, item.type) for item in declared}
    for name, array in feeds.items():
        if name not in wanted:
            raise ValueError(f"the model has no input {name!r}; it has {', '.join(wanted)}")
        if str(array.dtype) != wanted[name]:
            raise ValueError(f"input {name!r} is {wanted[name]}, and {array.dtype} was given")
    if missing := wanted.keys() - feeds.keys():
        raise ValueError(f"no values were given for input {', '.join(sorted(missing))}")


def synthetic_inputs(declared: Sequence[Any], batch: int) -> dict[str, NDArray[Any]]:
    """Create inputs from what a model declares: the same values every time.

    Floating-point inputs are standard normal; integers are 0 or 1, which every vocabulary, mask
    and segment input accepts.

    Args:
        declared: Objects with ``name``, ``type`` and ``shape``, as onnxruntime describes inputs.
        batch: What a symbolic first dimension becomes; a fixed one must already be equal to it.

    Raises:
        ValueError: An input has an unknown dimension beyond the first, another fixed batch, or a
            type that is no tensor of numbers; the text names it.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for item in declared:
        if item.type not in _TENSORS:
            raise ValueError(f"input {item.name!r} has type {item.type}, not a tensor of numbers")
        shape = [_dimension(item, axis, batch) for axis in range(len(item.shape))]
        dtype = np.dtype(_TENSORS[item.type])
        if dtype.kind == "f":
            feeds[item.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
        else:
            feeds[item.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _dimension(item: Any, axis: int, batch: int) -> int:
    size = item.shape[axis]
    known = isinstance(size, int)
    if axis > 0 and not known:
        raise ValueError(
            f"input {item.name!r} has shape {item.shape}: dimension {axis} ({size or 'unnamed'}) "
            "is unknown, and only the first may be; export the model with it fixed"
        )
    if axis == 0 and known and len(item.shape) > 1 and size != batch:
        raise ValueError(
            f"input {item.name!r} has shape {item.shape}: its batch is fixed to {size}, and this "
            f"device runs batch {batch}; export it with a dynamic batch or use batch={size}"
        )
    return int(size) if known else batch


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


def main() -> NoReturn:
    """Serve requests until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    requests, replies = _take_pipes()
    waiting = _requests(requests)
    hello, _ = waiting.get()
    affinity = _pin(hello["cpus"])  # before the runtime creates threads, which inherit it

    import onnxruntime

    waited_ns = waited_by_schedstat()
    hello = {"version": onnxruntime.__version__, "affinity": affinity}
    write_frame(replies, {**hello, "waiting": "included" if waited_ns is None else "taken out"})
    sessions = Sessions(onnxruntime, waited_ns)
    while True:
        header, arrays = waiting.get()
        reply: Header
        try:
            reply, answers = sessions.answer(header, arrays)
            write_frame(replies, reply, answers)
        except OSError:
            sys.exit(0)
        except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the answer
            write_frame(replies, {"error": _reasoned(error)})


if __name__ == "__main__":
    main()

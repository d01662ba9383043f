"""Worker process: loads and runs models with one runtime, and times them on synthetic inputs.

It imports numpy and the runtime alone, so that it starts fast, and a crash of the runtime ends
only this process. Messages are pickles on stdin and stdout. The first request names the runtime;
each further one is a method of `Models` and its arguments, and gets one reply: the result, or a
`DeviceError` with the reason of a refusal.
"""

import importlib
import itertools
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.prefix_execution import TreeOutputs, run_tree
from hwsearch.devices.runtime import Declared, Feeds, LoadedModel, Options, Runtime, TimedRun
from hwsearch.errors import DeviceError

START = b"\0hwsearch worker\n"
"""Line that precedes the first reply."""
_READINGS = 1000

Clock = Callable[[], int]
"""Returns nanoseconds since a fixed moment."""


class Models:
    """Loaded models by number; ``cpu_ns`` is `cpu_clock`, None to time by the wall clock."""

    def __init__(self, runtime: Runtime, cpu_ns: Clock | None) -> None:
        self._runtime = runtime
        self._cpu_ns = cpu_ns
        self._numbers = itertools.count()
        self._models: dict[int, LoadedModel] = {}
        self._modes: dict[int, Mapping[str, TimedRun]] = {}

    def load(self, source: str | bytes, batch: int | None, options: Options) -> tuple[int, str]:
        """Load a model; return its number and, if a batch is given to time it, its inputs."""
        if isinstance(source, str) and not os.path.isfile(source):
            raise ValueError(f"there is no file {source}")
        model = self._runtime.load(source, batch=batch, options=options)
        number, text = next(self._numbers), ""
        if batch is not None:
            feeds, self._modes[number] = bind_synthetic(model, batch)
            text = ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in feeds.items())
        self._models[number] = model
        return number, text

    def unload(self, number: int) -> None:
        """Forget a model."""
        self._models.pop(number, None)
        self._modes.pop(number, None)

    def run(self, number: int, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs of a model."""
        model = self._models[number]
        check_inputs(model.inputs, feeds)
        return _numeric(model.run(feeds))

    def run_shared(
        self,
        parents: Mapping[int, int | None],
        ends: Collection[int],
        feeds: Feeds,
        size: int,
        threads: int,
    ) -> TreeOutputs:
        """Run a tree of loaded segments on a batch; see `run_tree`."""
        segments = {number: self._models[number] for number in parents}
        check_inputs(next(iter(segments.values())).inputs, feeds)
        done = run_tree(segments, parents, ends, feeds, size=size, threads=threads)
        for outputs in done.outputs.values():
            _numeric(outputs)
        return done

    def time(self, number: int, n: int) -> dict[str, NDArray[np.float64]]:
        """Time each mode ``n`` times: a (2, n) array of running and waiting seconds for each."""
        return {
            mode: np.array([self._timed(once) for _ in range(n)], dtype=np.float64).T
            for mode, once in self._modes[number].items()
        }

    def _timed(self, once: TimedRun) -> tuple[float, float]:
        own_s: float | None = None

        def run() -> None:
            nonlocal own_s
            own_s = once()

        running, waiting = timed_run(run, time.perf_counter_ns, self._cpu_ns)
        return (running / 1e9, waiting / 1e9) if own_s is None else (own_s, 0.0)

    def time_profiled(self, number: int, n: int) -> NDArray[np.float64]:
        """Run the first mode ``n`` times: (2, n) seconds of wall time and of waiting in it."""
        once = next(iter(self._modes[number].values()))
        spent = []
        for _ in range(n):
            running, waiting = timed_run(once, time.perf_counter_ns, self._cpu_ns)
            spent.append(((running + waiting) / 1e9, waiting / 1e9))
        return np.array(spent, dtype=np.float64).T

    def read_profile(self, number: int) -> tuple[list[str], NDArray[np.float64]]:
        """Return the names of nodes and their (runs, nodes) seconds."""
        found: tuple[list[str], NDArray[np.float64]]
        found = self._models[number].profile()  # type: ignore[attr-defined] # loaded for it
        return found


def check_inputs(declared: Sequence[Declared], feeds: Feeds) -> None:
    """Check names and types of inputs, which not every runtime does, else raise ValueError."""
    wanted = {item.name: item.dtype for item in declared}
    for name, array in feeds.items():
        if name not in wanted:
            raise ValueError(f"the model has no input {name!r}; it has {', '.join(wanted)}")
        if str(array.dtype) != wanted[name]:
            raise ValueError(f"input {name!r} is {wanted[name]}, and {array.dtype} was given")
    if missing := wanted.keys() - feeds.keys():
        raise ValueError(f"no values were given for input {', '.join(sorted(missing))}")


def bind_synthetic(model: LoadedModel, batch: int) -> tuple[Feeds, Mapping[str, TimedRun]]:
    """Bind a model to inputs, and return them and its modes; raise ValueError for NaN outputs.

    A model may take the logarithm or the root of its inputs, so positive ones are tried too.
    """
    problem, stated = "", getattr(model, "stated", {})
    for positive in (False, True):
        feeds = synthetic_inputs(model.inputs, batch, stated, positive=positive)
        bound = model.bind(feeds)
        problem = next(
            (
                f"output {name!r} is NaN in {n:,} of {array.size:,} values"
                for name, array in bound.outputs.items()
                if array.dtype.kind == "f" and (n := int(np.isnan(array).sum()))
            ),
            "",
        )
        if not problem:
            return feeds, bound.modes
    raise ValueError(
        f"{problem}, for standard normal inputs and for inputs between 0 and 1 alike: it was not "
        "timed, as its weights or operators make every answer meaningless"
    )


def synthetic_inputs(
    declared: Sequence[Declared],
    batch: int,
    stated: Mapping[str, tuple[int, ...]] | None = None,
    *,
    positive: bool = False,
) -> dict[str, NDArray[Any]]:
    """Create the inputs of timed runs, the same values every time.

    Floating-point inputs are standard normal, or uniform from 0 to 1 where ``positive``; integers
    are 0 or 1, which every vocabulary, mask and segment input accepts. ``batch`` is the value of a
    symbolic first dimension; a fixed one must be equal to it. ``stated`` are shapes of one sample,
    by input, for other symbolic dimensions.

    Raises:
        ValueError: An input has an unknown dimension beyond the first, another fixed batch, or a
            type that is no tensor of numbers.
    """
    rng = np.random.default_rng(0)
    feeds = {}
    for item in declared:
        try:
            dtype = np.dtype(item.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype.kind not in "biuf":
            raise ValueError(f"input {item.name!r} has type {item.dtype}, not a tensor of numbers")
        sizes = (batch, *(stated or {}).get(item.name, ()))
        known = sizes if len(sizes) == len(item.shape) else (batch,)
        shape = [_dimension(item, axis, batch, known) for axis in range(len(item.shape))]
        if dtype.kind == "f":
            values = rng.random(shape) if positive else rng.standard_normal(shape)
            feeds[item.name] = np.asarray(values).astype(dtype)
        else:
            feeds[item.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    return feeds


def _dimension(item: Declared, axis: int, batch: int, known: Sequence[int]) -> int:
    size, shape = item.shape[axis], list(item.shape)
    if not isinstance(size, int):
        if axis < len(known):
            return known[axis]
        raise ValueError(
            f"input {item.name!r} has shape {shape}: dimension {axis} ({size or 'unnamed'}) "
            "is not fixed, and only the first one may be open. Export the model with it fixed, or "
            f"fix it with: python -m onnxruntime.tools.make_dynamic_shape_fixed "
            f"{_fix(item, axis)} MODEL.onnx FIXED.onnx"
        )
    if axis == 0 and len(shape) > 1 and size != batch:
        raise ValueError(
            f"input {item.name!r} has shape {shape}: its batch is fixed to {size}, and this "
            f"device runs batch {batch}; export it with a dynamic batch, or add batch={size} to "
            f"the device, as in ort-cpu:threads=1,batch={size}"
        )
    return size


def _fix(item: Declared, axis: int) -> str:
    """Return the options of ONNX Runtime's tool that fix a dimension."""
    size = item.shape[axis]
    if isinstance(size, str):
        return f"--dim_param {size} --dim_value N"
    sizes = ",".join(str(each) if isinstance(each, int) else "N" for each in item.shape)
    return f"--input_name {item.name} --input_shape {sizes}"


def cpu_clock() -> Clock | None:
    """Return the clock of this thread's CPU time; None where it moves in coarse steps.

    It stands still while the thread waits for a CPU, and where the hypervisor reports it, while
    another virtual machine has the CPU.
    """
    readings = {time.thread_time_ns() for _ in range(_READINGS)}
    return time.thread_time_ns if len(readings) > _READINGS // 2 else None


def timed_run(run: Callable[[], object], wall_ns: Clock, cpu_ns: Clock | None) -> tuple[int, int]:
    """Run once; return the running time and the time without a CPU meanwhile, nanoseconds.

    On a busy machine most runs of a few milliseconds are interrupted by another process's time
    slice, so that any quantile of wall times measures that process. The running time is therefore
    the difference of two readings of one clock, which stands still while the thread waits. The
    difference of a wall clock and an account of waiting is not: an interruption between the
    two readings makes the run too short by a whole time slice.
    """
    if cpu_ns is None:
        start = wall_ns()
        run()
        return wall_ns() - start, 0
    before, start = cpu_ns(), wall_ns()
    run()
    end, after = wall_ns(), cpu_ns()
    running = after - before
    return running, max(0, end - start - running)


def _numeric(outputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    for output in outputs:
        dtype = np.asarray(output).dtype
        if dtype.kind not in "biuf":
            raise ValueError(f"an output has type {dtype}, not a tensor of numbers")
    return outputs


def _reasoned(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0][:500]
    named = isinstance(error, ValueError) or text.startswith("[ONNXRuntimeError]")
    return text if named else f"{type(error).__name__}: {text}"


def _requests(stream: BinaryIO) -> "queue.Queue[Any]":
    """Read requests in a thread that ends the process when the pipe from the parent ends.

    A hanging runtime releases the interpreter lock, and the pipe ends however the parent ends.
    """
    waiting: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        try:
            while True:
                waiting.put(pickle.load(stream))
        finally:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


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
    # The two pipes are for messages; all other output goes to stderr.
    waiting, replies = _requests(os.fdopen(os.dup(0), "rb")), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    name, cpus, account = waiting.get()
    affinity = _pin(cpus)  # before the runtime creates threads, which inherit it
    module, _, attribute = name.partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), attribute)
    cpu_ns = cpu_clock() if account else None
    models = Models(runtime, cpu_ns)
    replies.write(START)
    included = "included" if cpu_ns is None else "taken out"
    reply: object = (runtime.version, affinity, included)
    while True:
        try:
            # Pickled as a whole first, so that what cannot be pickled leaves no half message.
            replies.write(pickle.dumps(reply, pickle.HIGHEST_PROTOCOL))
            replies.flush()
        except OSError:
            sys.exit(0)
        method, arguments = waiting.get()
        try:
            reply = getattr(models, method)(*arguments)
        except Exception as error:  # noqa: BLE001 - every error of the runtime is the reply
            reply = DeviceError(_reasoned(error))

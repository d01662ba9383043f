"""Runtime of ``tensorrt``: TensorRT 10 or 11 with engines that are cached, inside a worker."""

import ctypes
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

# CUDA reads it at its start: GPUs in NVML's order.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

import numpy as np
import tensorrt as trt
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Bound, Declared, Feeds, Options
from hwsearch.files import write_atomic

Loaded = TypeVar("Loaded")
Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Least and largest shape of each input whose first size is not fixed."""


class Log(trt.ILogger):  # type: ignore[misc] # the library has no types
    """Keeps TensorRT's last error, which its functions do not raise."""

    def __init__(self) -> None:
        super().__init__()
        self.error = "no reason given"

    def log(self, severity: Any, message: str) -> None:
        """Keep the first line of an error, drop other messages."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.error = message.strip().partition("\n")[0]


LOG = Log()


class TensorRtModel:
    """A strongly typed network, whose engine is built once shapes are known; see `LoadedModel`.

    ``folders`` are those of engines. Raise ValueError where TensorRT cannot read the model, or has
    no implementation of a node.
    """

    def __init__(self, source: str | bytes, folders: list[Path], options: Options) -> None:
        self._folders, self._options = folders, options
        self._content = source if isinstance(source, bytes) else Path(source).read_bytes()
        self._builder = trt.Builder(LOG)
        strongly = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        # From 11 on networks are always strongly typed, and the flag is deprecated.
        flags = 1 << int(strongly) if int(trt.__version__.split(".")[0]) < 11 else 0
        self._network = self._builder.create_network(flags)
        self._parser = trt.OnnxParser(self._network, LOG)  # it owns the weights of the network
        if not self._parser.parse(self._content, source if isinstance(source, str) else None):
            errors = [self._parser.get_error(i).desc() for i in range(self._parser.num_errors)]
            raise ValueError(f"TensorRT cannot take the model: {'; '.join(errors) or LOG.error}")
        self.inputs = [
            _declared(self._network.get_input(i)) for i in range(self._network.num_inputs)
        ]
        self._running: Execution | None = None
        self._largest = 0

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs; a batch larger than all before needs a new engine."""
        size = max((len(array) for array in feeds.values() if array.ndim), default=0)
        if self._running is None or size > self._largest:
            self._running, self._largest = self._execution(feeds, least=1), size
        return list(self._running.outputs(feeds).values())

    def bind(self, feeds: Feeds) -> Bound:
        """Run once, with the inputs copied to the GPU and the outputs kept there."""
        execution = self._execution(feeds, least=None)
        outputs = execution.outputs(feeds)
        modes = {ON_DEVICE: execution.on_device, END_TO_END: execution.end_to_end}
        return Bound(modes, outputs)

    def _execution(self, feeds: Feeds, least: int | None) -> "Execution":
        """Load or build an engine for batches from ``least``, or this one alone, to ``feeds``."""
        given = {each.name: feeds[each.name].shape for each in self.inputs if None in each.shape}
        shapes = {
            name: (shape if least is None else (least, *shape[1:]), shape)
            for name, shape in given.items()
        }
        listed = sorted((name, *each) for name, each in shapes.items())
        text = f"{self._options['key']} {listed}".encode() + self._content
        name = f"{hashlib.sha256(text).hexdigest()[:16]}.engine"
        return cached_engine(name, self._folders, Execution, lambda: self._build(shapes))

    def _build(self, shapes: Shapes) -> bytes:
        """Build an engine optimised for the largest shapes, and add to the kept kernel timings."""
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        if shapes:
            profile = self._builder.create_optimization_profile()
            for name, (least, largest) in shapes.items():
                profile.set_shape(name, least, largest, largest)
            config.add_optimization_profile(profile)
        timings = Path(self._options["engines"]) / "kernels.timing"
        cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
        # A cache of another GPU or version is refused.
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        serialised = self._builder.build_serialized_network(self._network, config)
        if serialised is None:
            raise ValueError(f"TensorRT cannot build an engine: {LOG.error}")
        _written(timings, bytes(config.get_timing_cache().serialize()))
        return bytes(serialised)


def cached_engine(
    name: str, folders: list[Path], load: Callable[[bytes], Loaded], build: Callable[[], bytes]
) -> Loaded:
    """Load the engine ``name`` from the first folder that has a valid one, else build it.

    ``load`` raises ValueError for damaged bytes. A new engine is stored in the first writable
    folder.
    """
    for folder in folders:
        if (folder / name).is_file():
            try:
                return load((folder / name).read_bytes())
            except ValueError:
                continue
    engine = build()
    any(_written(folder / name, engine) for folder in folders)
    return load(engine)


def _written(path: Path, data: bytes) -> bool:
    """Write a file atomically; return False where its folder cannot be written."""
    try:
        write_atomic(path, data)
    except OSError:
        return False
    return True


class Execution:
    """An engine with its memory; raises ValueError where TensorRT refuses its bytes."""

    def __init__(self, serialised: bytes) -> None:
        self._runtime = trt.Runtime(LOG)
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            raise ValueError(f"TensorRT cannot load an engine: {LOG.error}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ValueError(f"TensorRT has no room for the engine: {LOG.error}")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
        self._arrays: dict[str, PinnedArray] = {}
        self._stream = cuda(cudart.cudaStreamCreate)
        self._start, self._end = cuda(cudart.cudaEventCreate), cuda(cudart.cudaEventCreate)

    def outputs(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run on these inputs and return the outputs by name."""
        for name in self._inputs:
            self._context.set_input_shape(name, tuple(feeds[name].shape))
        for name in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            if name not in self._arrays or self._arrays[name].host.shape != shape:
                dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
                self._arrays[name] = PinnedArray(shape, dtype)
                self._context.set_tensor_address(name, self._arrays[name].device)
        for name in self._inputs:
            self._arrays[name].host[...] = feeds[name]
        self.end_to_end()
        return {name: self._arrays[name].host.copy() for name in self._outputs}

    def on_device(self) -> float:
        """Run once and return the seconds that the GPU measured."""
        cuda(cudart.cudaEventRecord, self._start, self._stream)
        self._enqueue()
        cuda(cudart.cudaEventRecord, self._end, self._stream)
        cuda(cudart.cudaEventSynchronize, self._end)
        return float(cuda(cudart.cudaEventElapsedTime, self._start, self._end)) / 1e3

    def end_to_end(self) -> None:
        """Copy to the GPU, run, copy back, and wait until the copies are complete."""
        for name in self._inputs:
            self._arrays[name].to_device(self._stream)
        self._enqueue()
        for name in self._outputs:
            self._arrays[name].to_host(self._stream)
        cuda(cudart.cudaStreamSynchronize, self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise ValueError(f"TensorRT cannot run the engine: {LOG.error}")


class PinnedArray:
    """A page-locked writable array, ``host``, and the address of a GPU buffer, ``device``."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = int(np.prod(shape, dtype=np.int64))
        self._n_bytes = max(1, size * dtype.itemsize)
        self._address = int(cuda(cudart.cudaMallocHost, self._n_bytes))
        self.device = int(cuda(cudart.cudaMalloc, self._n_bytes))
        raw = (ctypes.c_byte * self._n_bytes).from_address(self._address)
        self.host: NDArray[Any] = np.frombuffer(memoryview(raw), dtype, size).reshape(shape)

    def to_device(self, stream: Any) -> None:
        """Queue a copy to the GPU on the stream."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        cuda(cudart.cudaMemcpyAsync, self.device, self._address, self._n_bytes, kind, stream)

    def to_host(self, stream: Any) -> None:
        """Queue a copy from the GPU on the stream."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        cuda(cudart.cudaMemcpyAsync, self._address, self.device, self._n_bytes, kind, stream)

    def __del__(self) -> None:
        # Unchecked: at the end of the process CUDA may be unloaded before the array is freed.
        if hasattr(self, "device"):
            cudart.cudaFree(self.device)
        if hasattr(self, "_address"):
            cudart.cudaFreeHost(self._address)


def cuda(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of CUDA's runtime and return its result; raise its error as RuntimeError."""
    code, *values = function(*args)
    if code != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(code)
        reason = text.decode() if isinstance(text, bytes) else text
        raise RuntimeError(f"CUDA: {function.__name__} failed: {reason}")
    return values[0] if values else None


class TensorRtRuntime:
    """TensorRT 10 or 11; see `hwsearch.devices.runtime.Runtime`.

    Options: ``device_id``, ``engines`` (folder of the device's fingerprint), ``key`` (its digest)
    and ``beside`` (whether an engine is stored next to its ONNX file).
    """

    version: str = trt.__version__

    def load(
        self,
        source: str | bytes,
        *,
        batch: int | None,  # noqa: ARG002 - the engine is built for the inputs of a run
        options: Options,
    ) -> TensorRtModel:
        """Parse a model; see `hwsearch.devices.runtime.Runtime.load`."""
        cuda(cudart.cudaSetDevice, options["device_id"])
        folders = [Path(options["engines"])]
        if isinstance(source, str) and options["beside"]:
            folders.insert(0, Path(source).parent)
        return TensorRtModel(source, folders, options)


def _declared(tensor: Any) -> Declared:
    try:
        dtype = np.dtype(trt.nptype(tensor.dtype)).name
    except TypeError:
        dtype = str(tensor.dtype)
    shape = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return Declared(name=tensor.name, dtype=dtype, shape=shape)


RUNTIME = TensorRtRuntime()

"""Runtime of ``tensorrt``: TensorRT 10 or 11, inside a worker process."""

import os
from pathlib import Path
from typing import Any

# CUDA reads it at its start: GPUs in NVML's order.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")

import numpy as np
import tensorrt as trt
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray

from hwsearch.devices.cuda_memory import EventTimer, PinnedArray, cuda
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Bound, Declared, Feeds, Options
from hwsearch.devices.tensorrt_engine import Log, Parsed, cached_engine

LOG = Log()


class TensorRtModel:
    """A parsed model, whose engine is built once shapes are known; see `LoadedModel`."""

    def __init__(self, parsed: Parsed, folders: list[Path], options: Options) -> None:
        self._parsed, self._folders, self._options = parsed, folders, options
        self._running: Execution | None = None
        self._largest = 0
        network = parsed.network
        self.inputs = [_declared(network.get_input(i)) for i in range(network.num_inputs)]

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
        timings = Path(self._options["engines"]) / "kernels.timing"
        return cached_engine(
            Execution,
            lambda: self._parsed.build(shapes, timings),
            self._parsed.content,
            shapes,
            key=self._options["key"],
            folders=self._folders,
        )


class Execution:
    """An engine with its memory; raises ValueError where TensorRT refuses its bytes."""

    def __init__(self, serialised: bytes) -> None:
        self._runtime = trt.Runtime(LOG)
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            raise ValueError(f"TensorRT cannot load an engine: {LOG.last()}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ValueError(f"TensorRT has no room for the engine: {LOG.last()}")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self._inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
        self._arrays: dict[str, PinnedArray] = {}
        self._stream = cuda(cudart.cudaStreamCreate)
        self._timer = EventTimer(self._stream)

    def outputs(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run on these inputs and return the outputs by name."""
        for name in self._inputs:
            self._context.set_input_shape(name, tuple(feeds[name].shape))
        for name in (*self._inputs, *self._outputs):
            self._allocate(name)
        for name in self._inputs:
            self._arrays[name].host[...] = feeds[name]
        self.end_to_end()
        return {name: self._arrays[name].host.copy() for name in self._outputs}

    def on_device(self) -> float:
        """Run once and return the seconds that the GPU measured."""
        return self._timer.seconds(self._enqueue)

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
            raise ValueError(f"TensorRT cannot run the engine: {LOG.last()}")

    def _allocate(self, name: str) -> None:
        shape = tuple(self._context.get_tensor_shape(name))
        if name not in self._arrays or self._arrays[name].host.shape != shape:
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            self._arrays[name] = PinnedArray(shape, dtype)
            self._context.set_tensor_address(name, self._arrays[name].device)


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
        if isinstance(source, str):
            if not Path(source).is_file():
                raise ValueError(f"there is no file {source}")
            if options["beside"]:
                folders.insert(0, Path(source).parent)
        return TensorRtModel(Parsed(source, LOG), folders, options)


def _declared(tensor: Any) -> Declared:
    try:
        dtype = np.dtype(trt.nptype(tensor.dtype)).name
    except TypeError:
        dtype = str(tensor.dtype)
    shape = tuple(None if size < 0 else int(size) for size in tensor.shape)
    return Declared(name=tensor.name, dtype=dtype, shape=shape)


RUNTIME = TensorRtRuntime()

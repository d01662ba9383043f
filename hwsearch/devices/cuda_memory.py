"""CUDA memory, copies and event timers for running engines, inside a worker process."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart
from numpy.typing import NDArray


def cuda(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of CUDA's runtime and return its result; raise its error as RuntimeError."""
    code, *values = function(*args)
    if code != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(code)
        reason = text.decode() if isinstance(text, bytes) else text
        raise RuntimeError(f"CUDA: {function.__name__} failed: {reason}")
    return values[0] if values else None


class PinnedArray:
    """A page-locked writable array, ``host``, and the address of a GPU buffer, ``device``."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        n_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self._n_bytes = n_bytes
        self._address = int(cuda(cudart.cudaMallocHost, n_bytes))
        self.device = int(cuda(cudart.cudaMalloc, n_bytes))
        raw = (ctypes.c_byte * n_bytes).from_address(self._address)
        size = int(np.prod(shape, dtype=np.int64))
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


class EventTimer:
    """Time between two events on a stream, measured by the GPU."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._start = cuda(cudart.cudaEventCreate)
        self._end = cuda(cudart.cudaEventCreate)

    def seconds(self, enqueue: Callable[[], object]) -> float:
        """Return the seconds of the work that ``enqueue`` puts on the stream."""
        cuda(cudart.cudaEventRecord, self._start, self._stream)
        enqueue()
        cuda(cudart.cudaEventRecord, self._end, self._stream)
        cuda(cudart.cudaEventSynchronize, self._end)
        return float(cuda(cudart.cudaEventElapsedTime, self._start, self._end)) / 1e3

"""Stands in for CUDA's runtime: the GPU's memory is the machine's, and work is done at once."""

import ctypes
import enum
import time

HELD = {}


class cudaError_t(enum.Enum):
    cudaSuccess, cudaErrorInvalidValue, cudaErrorInvalidDevice = 0, 1, 101


class cudaMemcpyKind(enum.Enum):
    cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2


OK = cudaError_t.cudaSuccess


def cudaGetErrorString(code):
    return OK, f"the stand-in says {code.name}".encode()


def cudaSetDevice(number):
    return (OK if number == 0 else cudaError_t.cudaErrorInvalidDevice,)


def cudaMalloc(n_bytes):
    room = (ctypes.c_byte * n_bytes)()
    HELD[ctypes.addressof(room)] = room
    return OK, ctypes.addressof(room)


cudaMallocHost = cudaMalloc


def cudaFree(address):
    return (OK if HELD.pop(address, None) else cudaError_t.cudaErrorInvalidValue,)


cudaFreeHost = cudaFree


def cudaMemcpyAsync(to, source, n_bytes, kind, stream):
    ctypes.memmove(to, source, n_bytes)
    return (OK,)


def cudaStreamCreate():
    return OK, 7


def cudaStreamSynchronize(stream):
    return (OK,)


def cudaEventCreate():
    return OK, []


def cudaEventRecord(event, stream):
    event[:] = [time.perf_counter()]
    return (OK,)


def cudaEventSynchronize(event):
    return (OK,)


def cudaEventElapsedTime(start, end):
    return OK, (end[0] - start[0]) * 1e3

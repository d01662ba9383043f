"""Inference with several models in one worker process, common prefixes computed once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import onnx

from hwsearch.devices.base import Batch, SharedOutputs
from hwsearch.devices.messages import Arrays, Header
from hwsearch.devices.model_check import refusal
from hwsearch.devices.runtime import Options
from hwsearch.devices.worker_process import Request, Worker
from hwsearch.errors import DeviceError
from hwsearch.models.onnx_file import FileIdentity, external_tensors, file_identity, read_model
from hwsearch.models.shared_segments import Segment, shared_segments

# Larger chunks leave the cache, smaller ones are dominated by the overhead of calls.
CHUNK_BYTES = 2 << 20
MAX_CHUNK = 32


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """A batch that models run on; ``request`` is None where every model has failed.

    ``ends`` lists for each segment the models that end there.
    """

    models: Sequence[str]
    segments: Sequence[Segment]
    ends: Sequence[Sequence[str]]
    request: Request | None


class SharedSession:
    """Models that are loaded as a tree of segments, to run on the same batches.

    Args:
        worker: Runs them.
        numbers: Yields unused model numbers of the worker.
        options: Options of the runtime for each segment, which takes one thread.
        threads: Chunks of a batch that run concurrently.
        timeout_s: Time limit of a reply.
    """

    def __init__(
        self,
        worker: Worker,
        numbers: "count[int]",
        options: Options,
        threads: int,
        timeout_s: float,
    ) -> None:
        self._worker, self._numbers, self._options = worker, numbers, dict(options)
        self._threads, self._timeout_s = threads, timeout_s
        self._failed: dict[str, DeviceError] = {}
        # Index of a segment -> its number in the worker, and the segment without its content.
        self._loaded: dict[int, tuple[int, Segment]] = {}
        self._files: dict[str, FileIdentity] = {}

    def holds(self, models: Mapping[str, Path]) -> bool:
        """Return whether exactly these files are loaded and the worker lives."""
        known = [self._files.get(name) == file_identity(path) for name, path in models.items()]
        return all(known) and not self._worker.lost

    def load(self, models: Mapping[str, Path], device: str, precision: str) -> None:
        """Load all ONNX files that a device takes; keep the reasons of those it refuses."""
        self._files = {name: file_identity(path) for name, path in models.items()}
        read = {}
        for name, path in models.items():
            try:
                model = read_model(path)
                if error := refusal(path, device, precision):
                    self._failed[name] = error
                    continue
                # Reading weights of other files changes a model, and the one read is shared.
                split = next(external_tensors(model), None) is not None
                read[name] = onnx.load(path) if split else model
            except Exception as error:  # noqa: BLE001 - protobuf's own error class has no types
                self._failed[name] = DeviceError(f"{path.name} cannot be read: {error}")
        for index, segment in enumerate(shared_segments(read)):
            if all(name in self._failed for name in segment.models):
                continue
            number = next(self._numbers)
            load = {"op": "load", "id": number, "batch": None, "options": self._options}
            try:
                self._request(load, [np.frombuffer(segment.content, np.uint8)])
            except DeviceError as error:
                if self._worker.lost:
                    raise
                self._failed |= dict.fromkeys(segment.models, error)
            else:
                self._loaded[index] = number, replace(segment, content=b"")

    def unload(self) -> None:
        """Unload all models."""
        for number, _ in self._loaded.values():
            if not self._worker.lost:
                self._request({"op": "unload", "id": number})

    def submit(self, models: Collection[str], batch: Batch) -> PendingBatch:
        """Queue a batch for some of the models."""
        wanted = set(models) - self._failed.keys()
        chosen = {
            index: (number, segment)
            for index, (number, segment) in self._loaded.items()
            if wanted & set(segment.models)
        }
        segments = [segment for _, segment in chosen.values()]
        ends = [[name for name in segment.ends if name in wanted] for segment in segments]
        request = None
        if segments:
            position = {index: at for at, index in enumerate(chosen)}
            header = {
                "op": "run shared",
                "id": 0,
                "segments": [number for number, _ in chosen.values()],
                "parents": [None if s.before is None else position[s.before] for s in segments],
                "ends": [bool(names) for names in ends],
                "names": list(batch),
                "size": _chunk_size(batch),
                "threads": self._threads,
            }
            arrays = list(batch.values())
            request = self._worker.send(header, arrays, timeout_s=self._timeout_s)
        return PendingBatch(tuple(models), segments, ends, request)

    def result(self, pending: PendingBatch) -> SharedOutputs:
        """Wait for the outputs of a queued batch."""
        outputs: dict[str, Arrays] = {}
        seconds = [0.0] * len(pending.segments)
        if pending.request is not None:
            reply, arrays = self._worker.receive(pending.request, timeout_s=self._timeout_s)
            seconds = reply["seconds"]
            for index, reason in reply["errors"]:
                for name in pending.segments[index].models:
                    self._failed.setdefault(name, DeviceError(reason))
            ends = filter(None, pending.ends)
            for names, n_outputs in zip(ends, reply["counts"], strict=True):
                outputs |= dict.fromkeys(names, arrays[:n_outputs])
                arrays = arrays[n_outputs:]
        return SharedOutputs(
            outputs={name: self._failed.get(name) or outputs[name] for name in pending.models},
            shares=_shares(pending.models, pending.segments, seconds),
        )

    def _request(self, header: Header, arrays: Arrays | None = None) -> tuple[Header, Arrays]:
        return self._worker.request(header, arrays or [], timeout_s=self._timeout_s)


def _chunk_size(batch: Batch) -> int:
    samples = len(next(iter(batch.values())))
    bytes_each = sum(array.nbytes for array in batch.values()) / max(samples, 1)
    return max(1, min(MAX_CHUNK, int(CHUNK_BYTES / max(bytes_each, 1))))


def _shares(
    models: Collection[str], segments: Sequence[Segment], seconds: Sequence[float]
) -> dict[str, float]:
    """Divide the time of each segment among its models; shares sum to 1."""
    spent = dict.fromkeys(models, 0.0)
    for segment, took in zip(segments, seconds, strict=True):
        users = [name for name in segment.models if name in spent]
        for name in users:
            spent[name] += took / len(users)
    total = sum(spent.values()) or 1.0
    return {name: each / total for name, each in spent.items()}

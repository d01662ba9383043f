"""Inference with several models in one worker process, common prefixes computed once."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from hwsearch.devices.base import Device, SharedOutputs
from hwsearch.devices.model_check import refusal
from hwsearch.devices.prefix_execution import TreeOutputs
from hwsearch.devices.runtime import Feeds
from hwsearch.devices.worker_process import Worker
from hwsearch.errors import DeviceError
from hwsearch.models.onnx_file import external_tensors, file_identity, read_model
from hwsearch.models.shared_segments import Segment, shared_segments

# Larger chunks leave the cache, smaller ones are dominated by the overhead of calls.
CHUNK_BYTES = 2 << 20
MAX_CHUNK = 32


class SharedSession:
    """ONNX files that a worker loads as a tree of segments, to run on the same batches.

    Files that ``device`` refuses have the reasons as their outputs. A segment takes one thread,
    and ``threads`` chunks of a batch run concurrently.
    """

    def __init__(
        self, worker: Worker, models: Mapping[str, Path], device: Device, threads: int
    ) -> None:
        self._worker, self._threads = worker, threads
        self._failed: dict[str, DeviceError] = {}
        # By numbers in the worker, which are also those in `before`; without contents.
        self._segments: dict[int, Segment] = {}
        self._files = {name: file_identity(path) for name, path in models.items()}
        read = {}
        for name, path in models.items():
            try:
                model = read_model(path)
                if error := refusal(path, device.spec, device.precision):
                    self._failed[name] = error
                    continue
                # Reading weights of other files changes a model, and the one read is shared.
                split = next(external_tensors(model), None) is not None
                read[name] = onnx.load(path) if split else model
            except Exception as error:  # noqa: BLE001 - protobuf's own error class has no types
                self._failed[name] = DeviceError(f"{path.name} cannot be read: {error}")
        numbers: dict[int | None, int | None] = {None: None}
        for index, segment in enumerate(shared_segments(read)):
            if all(name in self._failed for name in segment.models):
                continue
            try:
                number, _ = worker.call("load", segment.content, None, {"threads": 1})
            except DeviceError as error:
                if worker.lost:
                    raise
                self._failed |= dict.fromkeys(segment.models, error)
            else:
                before = numbers[segment.before]
                self._segments[number] = replace(segment, content=b"", before=before)
                numbers[index] = number

    def holds(self, models: Mapping[str, Path]) -> bool:
        """Return whether these files are loaded and the worker lives."""
        known = [self._files.get(name) == file_identity(path) for name, path in models.items()]
        return all(known) and not self._worker.lost

    def unload(self) -> None:
        """Unload all models, after which none is held."""
        self._files = {}
        for number in self._segments:
            if not self._worker.lost:
                self._worker.call("unload", number)

    def run(self, models: Collection[str], batches: Iterable[Feeds]) -> Iterator[SharedOutputs]:
        """Run some of the models; a batch is prepared and sent while the worker computes."""
        sent: deque[Future[Any] | None] = deque()
        for batch in batches:
            sent.append(self._send(models, batch))
            if len(sent) > 1:
                yield self._receive(models, sent.popleft())
        for reply in sent:
            yield self._receive(models, reply)

    def _send(self, models: Collection[str], batch: Feeds) -> "Future[Any] | None":
        """Send a batch; return None where every model has failed."""
        wanted = set(models) - self._failed.keys()
        used = {n: each for n, each in self._segments.items() if wanted & set(each.models)}
        if not used:
            return None
        parents = {number: segment.before for number, segment in used.items()}
        ends = {number for number, segment in used.items() if wanted & set(segment.ends)}
        samples = len(next(iter(batch.values())))
        bytes_each = sum(array.nbytes for array in batch.values()) / max(samples, 1)
        size = max(1, min(MAX_CHUNK, int(CHUNK_BYTES / max(bytes_each, 1))))
        return self._worker.send("run_shared", parents, ends, dict(batch), size, self._threads)

    def _receive(self, models: Collection[str], reply: "Future[Any] | None") -> SharedOutputs:
        """Wait for the outputs of a batch; the time of a segment is divided among its models."""
        done = self._worker.receive(reply) if reply else TreeOutputs({}, {}, {})
        for number, reason in done.errors.items():
            for name in self._segments[number].models:
                self._failed.setdefault(name, DeviceError(reason))
        outputs = {
            name: arrays
            for number, arrays in done.outputs.items()
            for name in self._segments[number].ends
        }
        spent_s = dict.fromkeys(models, 0.0)
        for number, took_s in done.seconds.items():
            users = [name for name in self._segments[number].models if name in spent_s]
            for name in users:
                spent_s[name] += took_s / len(users)
        total_s = sum(spent_s.values()) or 1.0
        return SharedOutputs(
            outputs={name: self._failed.get(name) or outputs[name] for name in models},
            shares={name: each_s / total_s for name, each_s in spent_s.items()},
        )

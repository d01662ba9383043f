"""Running several models in one worker process, and what they begin with alike once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.devices.base import Answers
from hwsearch.devices.frames import Arrays, Header
from hwsearch.devices.runtime import Options
from hwsearch.devices.worker_process import Asked, Worker
from hwsearch.errors import DeviceError
from hwsearch.models.parts import Part, shared_parts

# A piece of a batch: larger ones leave the cache, smaller ones pay for every call.
PIECE_BYTES = 2 << 20
MOST_SAMPLES = 32

Outputs = dict[str, list[NDArray[Any]] | DeviceError]


@dataclass(frozen=True, slots=True)
class Walked:
    """Models on one batch, whose answers are still to come.

    Attributes:
        models: Their names.
        parts: What they lead through.
        ends: For each part, the models that end there.
        asked: The request; None where no model is left to be run.
    """

    models: Sequence[str]
    parts: Sequence[Part]
    ends: Sequence[Sequence[str]]
    asked: Asked | None


class Together:
    """Models that are loaded side by side, to be run together.

    Args:
        worker: Runs them.
        numbers: Gives names that no other model in it has.
        options: What the runtime is told about each; it is to take one thread.
        threads: Pieces of a batch that are run at a time.
        timeout_s: How long an answer may take.
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
        # Place among the parts -> the number that it is loaded by, and the part itself.
        self._loaded: dict[int, tuple[int, Part]] = {}
        self._files: dict[str, tuple[str, int, int]] = {}

    def holds(self, models: Mapping[str, Path]) -> bool:
        """Whether these very files are loaded, in a process that lives."""
        known = [self._files.get(name) == _identity(path) for name, path in models.items()]
        return all(known) and not self._worker.lost

    def load(self, models: Mapping[str, Path], refused: Mapping[str, DeviceError]) -> None:
        """Load models, by distinct names; what the runtime refuses answers with the reason.

        Args:
            models: ONNX files.
            refused: Those of them that are not to be loaded, and why.

        Raises:
            DeviceError: The runtime crashed or hung.
        """
        self._files = {name: _identity(path) for name, path in models.items()}
        self._failed |= refused
        read = {}
        for name in (name for name in models if name not in refused):
            try:
                read[name] = onnx.load(models[name])
            except Exception as error:  # noqa: BLE001 - protobuf's own error class has no types
                self._failed[name] = DeviceError(f"{models[name].name} cannot be read: {error}")
        for place, part in enumerate(shared_parts(read)):
            if any(name in self._failed for name in part.models):
                continue
            number = next(self._numbers)
            load = {"op": "load", "id": number, "batch": None, "options": self._options}
            try:
                self._ask(load, [np.frombuffer(part.content, np.uint8)])
            except DeviceError as error:
                if self._worker.lost:
                    raise
                self._failed |= dict.fromkeys(part.models, error)
            else:
                self._loaded[place] = number, replace(part, content=b"")

    def unload(self) -> None:
        """Let go of all of them."""
        for number, _ in self._loaded.values():
            if not self._worker.lost:
                self._ask({"op": "unload", "id": number})

    def ask(self, models: Collection[str], batch: Mapping[str, NDArray[Any]]) -> "Walked":
        """Let some of the models run on a batch, once those before it are done."""
        wanted = set(models) - self._failed.keys()
        walked = {
            place: (number, part)
            for place, (number, part) in self._loaded.items()
            if wanted & set(part.models)
        }
        parts = [part for _, part in walked.values()]
        ends = [[name for name in part.ends if name in wanted] for part in parts]
        asked = None
        if parts:
            places = {place: at for at, place in enumerate(walked)}
            header = {
                "op": "walk",
                "id": 0,
                "parts": [number for number, _ in walked.values()],
                "before": [None if p.before is None else places[p.before] for p in parts],
                "ends": [bool(names) for names in ends],
                "names": list(batch),
                "size": _piece(batch),
                "threads": self._threads,
            }
            arrays = list(batch.values())
            asked = self._worker.send(header, arrays, timeout_s=self._timeout_s)
        return Walked(tuple(models), parts, ends, asked)

    def answers(self, walked: "Walked") -> Answers:
        """Wait for what models answer to a batch."""
        outputs: Outputs = {}
        seconds = [0.0] * len(walked.parts)
        if walked.asked is not None:
            reply, arrays = self._worker.receive(walked.asked, timeout_s=self._timeout_s)
            seconds = reply["seconds"]
            for number, reason in reply["errors"]:
                for name in walked.parts[number].models:
                    self._failed.setdefault(name, DeviceError(reason))
            ends = filter(None, walked.ends)
            for names, n_outputs in zip(ends, reply["counts"], strict=True):
                outputs |= dict.fromkeys(names, arrays[:n_outputs])
                arrays = arrays[n_outputs:]
        return Answers(
            outputs={name: self._failed.get(name) or outputs[name] for name in walked.models},
            shares=_shares(walked.models, walked.parts, seconds),
        )

    def _ask(self, header: Header, arrays: Sequence[NDArray[Any]] = ()) -> tuple[Header, Arrays]:
        return self._worker.request(header, arrays, timeout_s=self._timeout_s)


def _identity(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return str(path.absolute()), found.st_mtime_ns, found.st_size


def _piece(batch: Mapping[str, NDArray[Any]]) -> int:
    samples = len(next(iter(batch.values())))
    bytes_each = sum(array.nbytes for array in batch.values()) / max(samples, 1)
    return max(1, min(MOST_SAMPLES, int(PIECE_BYTES / max(bytes_each, 1))))


def _shares(
    models: Collection[str], parts: Sequence[Part], seconds: Sequence[float]
) -> dict[str, float]:
    """Divide the time of every part among those that go through it."""
    spent = dict.fromkeys(models, 0.0)
    for part, took in zip(parts, seconds, strict=True):
        users = [name for name in part.models if name in spent]
        for name in users:
            spent[name] += took / len(users)
    total = sum(spent.values()) or 1.0
    return {name: each / total for name, each in spent.items()}

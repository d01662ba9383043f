"""Cache of the built models of a run, which are timed, scored and exported."""

import shutil
import tempfile
import time
import weakref
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from hwsearch.accuracy.scoring import prefix_groups
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.build import Builder, Built, raised
from hwsearch.machine import available_memory_bytes
from hwsearch.models.artifact import Exported
from hwsearch.models.onnx_file import read_model, write_model
from hwsearch.space import Architecture
from hwsearch.supernets.supernet import Supernet

SHARE_OF_MEMORY = 0.1  # of what is available when the first model is built
SHARE_OF_DISK = 0.1  # of the free space in the temporary folder then


@dataclass(slots=True, kw_only=True)
class BuiltModel:
    """A model file that is ready to be timed and scored.

    Attributes:
        exported: The network and its model; None if they left memory, or are only timed.
        only_timed: Whether its weights are repeated ones (`hwsearch.models.repeated_weights`).
        cost_s: Build time in seconds that no measurement has recorded.
        memory_bytes: Size of the objects in memory.
    """

    path: Path
    exported: Exported | None
    only_timed: bool
    cost_s: float
    file_bytes: int
    memory_bytes: int

    def charge(self) -> float:
        """Return the build time in seconds once, then 0."""
        cost_s, self.cost_s = self.cost_s, 0.0
        return cost_s


class BuiltModels:
    """An LRU cache of built models in a temporary folder and in memory, by architecture.

    Over the bounds, networks leave memory, and files are removed unless the current call needs
    them; both are rebuilt on demand. ``memory`` and ``disk`` are the bounds in bytes, by default
    a tenth of what is available.
    """

    def __init__(
        self, net: Supernet, builder: Builder, memory: int | None = None, disk: int | None = None
    ) -> None:
        self._net, self._builder = net, builder
        self._memory, self._disk = memory, disk
        self._entries: OrderedDict[Architecture, BuiltModel] = OrderedDict()
        self._folder: Path | None = None
        self._remove: weakref.finalize[..., BuiltModels] | None = None

    def get(
        self, archs: Sequence[Architecture], *, only_timed: bool = False
    ) -> dict[Architecture, BuiltModel | EvaluationError]:
        """Return the model of each distinct architecture, or the error of building it.

        Missing ones are built together. ``only_timed`` accepts models with other weights.
        """
        only_timed = only_timed and self._builder.repeats_weights
        self._trim(archs)
        missing = [arch for arch in archs if not self._has(arch, only_timed=only_timed)]
        failed: dict[Architecture, EvaluationError] = {}
        for group in prefix_groups(self._net, missing):
            failed |= self._build(group, only_timed=only_timed)
            self._trim(archs)
        for arch in archs:
            if arch in self._entries:
                self._entries.move_to_end(arch)
        return {arch: failed.get(arch) or self._entries[arch] for arch in archs}

    def exported(self, arch: Architecture) -> Exported:
        """Return the recalibrated network and its model in the device's precision.

        Raises:
            EvaluationError: The subnet cannot be built, recalibrated, exported or converted.
            DataError: The calibration samples cannot be read.
        """
        self._trim([arch])
        entry = self._entries.get(arch)
        if entry is None or entry.exported is None:  # it was not built, or left memory
            for error in self._build([arch]).values():
                raise error
            entry = self._entries[arch]
        self._entries.move_to_end(arch)
        assert entry.exported is not None
        return entry.exported

    def model(self, arch: Architecture, *, only_timed: bool = False) -> onnx.ModelProto:
        """Return a model in memory; errors are those of `exported`."""
        entry = raised(self.get([arch], only_timed=only_timed)[arch])
        return read_model(entry.path) if entry.exported is None else entry.exported.model

    def close(self) -> None:
        """Remove the files; later requests build again."""
        self._entries.clear()
        if self._remove is not None:
            self._remove()
        self._folder = self._remove = None

    def _has(self, arch: Architecture, *, only_timed: bool) -> bool:
        """Return whether there is a model; a fully built one is used for timing too."""
        entry = self._entries.get(arch)
        return entry is not None and (only_timed or not entry.only_timed)

    def _build(
        self, archs: Sequence[Architecture], *, only_timed: bool = False
    ) -> dict[Architecture, EvaluationError]:
        """Build and keep models; return the errors of the others."""
        failed = {}
        built = self._builder.build(archs, only_timed=only_timed)
        for arch, result in zip(archs, built, strict=True):
            if isinstance(result, EvaluationError):
                failed[arch] = result
                continue
            before, self._entries[arch] = self._entries.get(arch), self._written(arch, result)
            if before is not None and before.path != self._entries[arch].path:
                before.path.unlink(missing_ok=True)
        return failed

    def _written(self, arch: Architecture, built: Built) -> BuiltModel:
        begin, exported = time.perf_counter(), built.exported
        only_timed, memory_bytes = exported is None, 0
        path = self._scratch() / f"{arch.key}{'-timed' if only_timed else ''}.onnx"
        n_bytes = write_model(path, built.model, exported)
        if exported is not None:
            original = exported.original
            memory_bytes = n_bytes + (0 if original is None else int(original.ByteSize()))
            memory_bytes += sum(each.nbytes for each in exported.subnet.state_dict().values())
        return BuiltModel(
            path=path,
            exported=exported,
            only_timed=only_timed,
            cost_s=built.cost_s + time.perf_counter() - begin,
            file_bytes=n_bytes,
            memory_bytes=memory_bytes,
        )

    def _scratch(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="hwsearch-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            if self._memory is None:
                self._memory = int(SHARE_OF_MEMORY * available_memory_bytes())
            if self._disk is None:
                self._disk = int(SHARE_OF_DISK * shutil.disk_usage(self._folder).free)
        return self._folder

    def _trim(self, needed: Collection[Architecture]) -> None:
        """Enforce the bounds, except for files of the needed architectures."""
        in_memory = sum(each.memory_bytes for each in self._entries.values())
        on_disk = sum(each.file_bytes for each in self._entries.values())
        for arch, entry in list(self._entries.items()):
            if self._memory is not None and in_memory > self._memory:
                in_memory -= entry.memory_bytes
                entry.exported, entry.memory_bytes = None, 0
            if self._disk is not None and on_disk > self._disk and arch not in needed:
                on_disk -= entry.file_bytes
                entry.path.unlink(missing_ok=True)
                del self._entries[arch]

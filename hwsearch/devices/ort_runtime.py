"""Runtime of ``ort-cpu``: ONNX Runtime's CPU provider, inside a worker process."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hwsearch.devices.runtime import (
    INPUT_SPEC,
    RUN,
    Bound,
    Declared,
    Feeds,
    Options,
    stated_shapes,
)

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
_CUT_S = 0.5e-6  # the profiler cuts to whole microseconds, which loses half of one on average


class OrtModel:
    """An InferenceSession; see `hwsearch.devices.runtime.LoadedModel`."""

    def __init__(
        self, session: Any, profiled_in: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        self._session = session
        self._profiled_in = profiled_in
        self._outputs = [output.name for output in session.get_outputs()]
        self.inputs, self.stated = declared_inputs(session), stated_inputs(session)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs for a batch of any size."""
        return list(self._session.run(self._outputs, dict(feeds)))

    def bind(self, feeds: Feeds) -> Bound:
        """Run once, and prepare repeated runs on these inputs."""
        session, names, given = self._session, self._outputs, dict(feeds)

        def once() -> None:
            session.run(names, given)

        return Bound({RUN: once}, dict(zip(names, session.run(names, given), strict=True)))

    def profile(self) -> tuple[list[str], NDArray[np.float64]]:
        """End the profile and return node names and seconds."""
        path = Path(self._session.end_profiling())
        names, spent_s = read_profile(json.loads(path.read_text(encoding="utf-8")))
        if self._profiled_in is not None:
            self._profiled_in.cleanup()
        return names, spent_s[1:]  # without the run of `bind`


class OrtRuntime:
    """ONNX Runtime's CPU provider; see `hwsearch.devices.runtime.Runtime`.

    Options: ``threads``; ``cpus``, one for each thread, or absent; ``profile``, true or absent.
    """

    version: str = onnxruntime.__version__

    def load(
        self,
        source: str | bytes,
        *,
        batch: int | None,  # noqa: ARG002 - a session takes any batch
        options: Options,
    ) -> OrtModel:
        """Load a model."""
        settings = session_settings(options["threads"])
        cpus = options.get("cpus", [])
        known = hasattr(os, "sched_setaffinity") and max(cpus, default=0) < (os.cpu_count() or 1)
        # The system sometimes schedules two threads on one CPU while another one is idle.
        spread = known and len(cpus) > 1
        if spread:
            # ONNX Runtime counts from 1; the calling thread is the first one.
            others = ";".join(str(cpu + 1) for cpu in cpus[1:])
            settings.add_session_config_entry("session.intra_op_thread_affinities", others)
        folder = None
        if options.get("profile"):
            # Profiles are named by the second: in one folder they would overwrite each other.
            folder = tempfile.TemporaryDirectory(prefix="hwsearch-profile-")
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder.name) / "ort")
        session = onnxruntime.InferenceSession(
            source, settings, providers=["CPUExecutionProvider"]
        )
        if spread:
            os.sched_setaffinity(0, cpus[:1])  # of this thread alone
        return OrtModel(session, folder)


def session_settings(threads: int) -> Any:
    """Return settings for sequential execution with all graph optimisations, without logs."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = 3
    return settings


def declared_inputs(session: Any) -> list[Declared]:
    """Return the declared inputs of a session's model."""
    found = []
    for item in session.get_inputs():
        kind = item.type.removeprefix("tensor(").removesuffix(")")
        dtype = _NUMPY_NAMES.get(kind, kind)
        found.append(Declared(name=item.name, dtype=dtype, shape=tuple(item.shape)))
    return found


def stated_inputs(session: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a session's model states; see `stated_shapes`."""
    return stated_shapes(session.get_modelmeta().custom_metadata_map.get(INPUT_SPEC))


def read_profile(events: Sequence[Mapping[str, Any]]) -> tuple[list[str], NDArray[np.float64]]:
    """Return node names, and (runs, nodes) seconds summed over the iterations of a loop.

    In ``events``, ONNX Runtime's profile, whole runs are ``model_run``, and a kernel is its node's
    name followed by ``_kernel_time``; times are in whole microseconds.
    """
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    kernels = [
        (event["name"].removesuffix("_kernel_time"), event["ts"], event["dur"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    names = list(dict.fromkeys(name for name, _, _ in kernels))
    column = {name: index for index, name in enumerate(names)}
    spent_s = np.zeros((len(runs), len(names)))
    for name, start, took in kernels:
        run = int(np.searchsorted(runs, start, side="right")) - 1
        spent_s[run, column[name]] += took * 1e-6 + _CUT_S
    return names, spent_s


RUNTIME = OrtRuntime()

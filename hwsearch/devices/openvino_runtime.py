"""Runtime of ``openvino``: OpenVINO's CPU plugin, inside a worker process."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
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

_UNCOUNTED = 5
_CUT_S = 0.5e-6  # times are cut to whole microseconds, which loses half of one on average


class OpenVinoModel:
    """A compiled model; see `hwsearch.devices.runtime.LoadedModel`.

    ``declared`` are the inputs before the batch was fixed; with ``throughput`` a timed run is as
    many concurrent requests as OpenVINO recommends.
    """

    def __init__(
        self,
        compiled: Any,
        declared: list[Declared],
        stated: Mapping[str, tuple[int, ...]],
        *,
        throughput: bool,
    ) -> None:
        self._compiled, self.stated = compiled, stated
        self._throughput = throughput
        self._took_s: list[float] = []
        self._before: dict[str, float] = {}
        self._request = compiled.create_infer_request()
        self.inputs = declared

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs for a batch of any size."""
        answers = self._request.infer(dict(feeds))
        return [np.asarray(answers[output]) for output in self._compiled.outputs]

    def bind(self, feeds: Feeds) -> Bound:
        """Run once, and prepare repeated runs on these inputs."""
        _set_inputs(self._request, feeds)
        self._request.infer()
        names = [output.any_name for output in self._compiled.outputs]
        outputs = {name: np.array(self._request.get_tensor(name).data) for name in names}
        if not self._throughput:
            return Bound({RUN: self._single}, outputs)
        n = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        requests = [self._compiled.create_infer_request() for _ in range(n)]
        for request in requests:
            _set_inputs(request, feeds)

        def concurrent() -> float:
            start = time.perf_counter()
            for request in requests:
                request.start_async()
            for request in requests:
                request.wait()
            return (time.perf_counter() - start) / n

        return Bound({RUN: concurrent}, outputs)

    def _single(self) -> None:
        start = time.perf_counter()
        self._request.infer()
        self._took_s.append(time.perf_counter() - start)
        if len(self._took_s) == _UNCOUNTED:
            self._before = self._averages_s()

    def profile(self) -> tuple[list[str], NDArray[np.float64]]:
        """Return node names and seconds.

        OpenVINO keeps averages over all runs. The first runs are subtracted, and each other run
        gets the mean in proportion to its own total time.
        """
        after_s, took_s = self._averages_s(), np.array(self._took_s)
        n_runs, n_before = len(took_s) + 1, _UNCOUNTED + 1  # the one of `bind` is in the averages
        # A node below a microsecond on average is listed as not executed.
        before_s = [self._before.get(name, 0.0) for name in after_s]
        sums = n_runs * np.array([*after_s.values()]) - n_before * np.array(before_s)
        mean_s = np.maximum(sums / (n_runs - n_before), 0.0) + _CUT_S
        return list(after_s), np.outer(took_s / took_s[_UNCOUNTED:].mean(), mean_s)

    def _averages_s(self) -> dict[str, float]:
        return {
            each.node_name: each.real_time.total_seconds() + _CUT_S
            for each in self._request.get_profiling_info()
            if each.status == each.Status.EXECUTED
        }


class OpenVinoRuntime:
    """OpenVINO's CPU plugin; see `hwsearch.devices.runtime.Runtime`.

    Options: ``threads``, ``hint`` ("latency" or "throughput"), ``computes`` ("f32" or "bf16"), and
    ``profile`` (true or absent), which takes single requests.
    """

    version: str = openvino.__version__.split("-")[0]

    def __init__(self) -> None:
        self._core = openvino.Core()

    def load(self, source: str | bytes, *, batch: int | None, options: Options) -> OpenVinoModel:
        """Load a model and fix its batch by reshaping."""
        if options["computes"] == "bf16":
            _check_bf16(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        profiled = bool(options.get("profile"))
        throughput = options["hint"] == "throughput" and not profiled
        properties = {
            "INFERENCE_NUM_THREADS": options["threads"],
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            # Otherwise float32 files would run in bfloat16 on some processors.
            "INFERENCE_PRECISION_HINT": options["computes"],
            # The process is pinned as a whole.
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": profiled,
        }
        try:
            model = self._core.read_model(source)
            declared = [_declared(each) for each in model.inputs]
            stated = stated_shapes(_input_spec(model))
            if batch is not None:
                shapes = {each.name: _sizes(each, batch, stated) for each in declared}
                if not any(None in sizes for sizes in shapes.values()):
                    model.reshape(shapes)
            compiled = self._core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            raise ValueError(_reason(error)) from error
        return OpenVinoModel(compiled, declared, stated, throughput=throughput)


def _check_bf16(capabilities: list[str]) -> None:
    """Refuse a processor without bfloat16, on which OpenVINO would compute in float32."""
    if "BF16" not in capabilities:
        raise ValueError(
            f"OpenVINO computes in {', '.join(capabilities)} on this processor, and not in BF16, "
            "which takes avx512_bf16 or amx_bf16; use precision=fp32 or int8"
        )


def _set_inputs(request: Any, feeds: Feeds) -> None:
    for name, array in feeds.items():
        request.set_tensor(name, openvino.Tensor(array.copy()))


def _input_spec(model: Any) -> str | None:
    """Return the input spec that a model states, None without one."""
    path = ["framework", INPUT_SPEC]
    return str(model.get_rt_info(path).value) if model.has_rt_info(path) else None


def _sizes(
    item: Declared, batch: int, stated: Mapping[str, tuple[int, ...]]
) -> list[int | str | None]:
    """Return a shape with a size in place of each open dimension, None where none is known."""
    known = (batch, *stated.get(item.name, ()))
    known = known if len(known) == len(item.shape) else (batch,)
    filled = (*known, *[None] * (len(item.shape) - len(known)))
    return [new if old is None else old for old, new in zip(item.shape, filled, strict=False)]


def _declared(item: Any) -> Declared:
    dims = list(item.get_partial_shape())
    try:
        dtype = np.dtype(item.element_type.to_dtype()).name
    except (RuntimeError, TypeError, ValueError):
        dtype = item.element_type.to_string()
    shape = tuple(None if dim.is_dynamic else dim.get_length() for dim in dims)
    return Declared(name=item.any_name, dtype=dtype, shape=shape)


def _reason(error: Exception) -> str:
    """Return the last line of an OpenVINO error; the others name places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"OpenVINO: {lines[-1]}" if lines else "OpenVINO gives no reason"


RUNTIME = OpenVinoRuntime()

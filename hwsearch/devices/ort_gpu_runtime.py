"""Runtime of ``ort-cuda`` and ``ort-tensorrt``: ONNX Runtime with I/O binding, in a worker."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# CUDA reads both at its start: GPUs in NVML's order, and no TF32.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"

import onnxruntime
from numpy.typing import NDArray

from hwsearch.devices.ort_runtime import declared_inputs, session_settings, stated_inputs
from hwsearch.devices.runtime import END_TO_END, ON_DEVICE, Bound, Declared, Feeds, Options

Providers = list[tuple[str, dict[str, str]]]
_TENSORRT = "TensorrtExecutionProvider"


class OrtGpuModel:
    """A session on a GPU; see `hwsearch.devices.runtime.LoadedModel`.

    The requested provider is the first; ``memory`` is the kind and number of the memory of inputs
    and outputs, such as "cuda", 0.
    """

    def __init__(
        self,
        source: str | bytes,
        providers: Providers,
        *,
        memory: tuple[str, int],
        batch: int | None,
    ) -> None:
        self._source, self._providers, self._memory = source, providers, memory
        self._session = _session(source, providers, {})
        self._largest = 0
        self.inputs = declared_inputs(self._session)
        self.stated = stated_inputs(self._session)
        self._outputs = [output.name for output in self._session.get_outputs()]
        if batch is not None:
            sizes = {each.shape[0] for each in self.inputs if each.shape}
            if fixed := {size: batch for size in sizes if isinstance(size, str)}:
                self._session = _session(source, providers, fixed)

    def run(self, feeds: Feeds) -> list[NDArray[Any]]:
        """Return the outputs for a batch of any size."""
        size = max((len(array) for array in feeds.values() if array.ndim), default=0)
        if size > self._largest and self._providers[0][0] == _TENSORRT:
            self._largest = size
            if shapes := profile_shapes(self.inputs, feeds):
                providers = with_tensorrt_options(self._providers, shapes)
                self._session = _session(self._source, providers, {})
        return list(self._session.run(self._outputs, dict(feeds)))

    def bind(self, feeds: Feeds) -> Bound:
        """Run once, with the inputs copied to the GPU and the outputs kept there."""
        session, where = self._session, self._memory
        given = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array, *where)
            for name, array in feeds.items()
        }
        binding = session.io_binding()
        for name, value in given.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, *where)
        session.run_with_iobinding(binding)
        for name, value in zip(self._outputs, binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(name, value)
        binding.synchronize_inputs()
        first = dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

        def on_device() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        def end_to_end() -> None:
            for name, value in given.items():
                value.update_inplace(feeds[name])
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.copy_outputs_to_cpu()
            binding.synchronize_outputs()

        return Bound({ON_DEVICE: on_device, END_TO_END: end_to_end}, first)


class OrtGpuRuntime:
    """ONNX Runtime's providers for NVIDIA GPUs; see `hwsearch.devices.runtime.Runtime`.

    Options: ``device_id``, and ``providers`` (names with options, the requested one first).
    """

    version: str = onnxruntime.__version__

    def __init__(self) -> None:
        load_packaged_libraries()

    def load(self, source: str | bytes, *, batch: int | None, options: Options) -> OrtGpuModel:
        """Load a model; raise ValueError where ONNX Runtime fell back to the processor."""
        providers = with_own_engines(options["providers"], source, batch)
        if providers[0][0] == _TENSORRT and find_spec("tensorrt"):
            import_module("tensorrt")  # it loads its libraries, which ONNX Runtime does not find
        memory = ("cuda", options["device_id"])
        return OrtGpuModel(source, providers, memory=memory, batch=batch)


def load_packaged_libraries() -> None:
    """Load CUDA and cuDNN where they are Python packages, which the system's loader does not find.

    ONNX Runtime looks for them beside itself alone, and not in the packages of the environment
    that a virtual environment is based on.
    """
    if not hasattr(onnxruntime, "preload_dlls"):
        return
    onnxruntime.preload_dlls()
    nvidia = find_spec("nvidia")
    for place in (nvidia and nvidia.submodule_search_locations) or ():
        for folder in sorted(Path(place).glob("*/lib")):
            onnxruntime.preload_dlls(directory=str(folder))


def with_own_engines(providers: Providers, source: str | bytes, batch: int | None) -> Providers:
    """Give each model and batch a folder of its own for TensorRT's engines.

    ONNX Runtime names an engine by its model's structure, not by its weights.
    """
    name, options = providers[0]
    if name != _TENSORRT:
        return providers
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    own = f"{hashlib.sha256(content).hexdigest()[:16]}-batch-{batch or 'any'}"
    folder = Path(options["trt_engine_cache_path"]) / own
    folder.mkdir(parents=True, exist_ok=True)
    return with_tensorrt_options(providers, {"trt_engine_cache_path": str(folder)})


def profile_shapes(declared: Sequence[Declared], feeds: Feeds) -> dict[str, str]:
    """Return the shapes of TensorRT's profile from one sample to the given batch."""
    shapes = {
        item.name: list(map(str, feeds[item.name].shape))
        for item in declared
        if item.shape and not isinstance(item.shape[0], int)
    }
    if not shapes:
        return {}
    largest = ",".join(f"{name}:{'x'.join(shape)}" for name, shape in shapes.items())
    least = ",".join(f"{name}:{'x'.join(['1', *shape[1:]])}" for name, shape in shapes.items())
    names = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
    return dict(zip(names, (least, largest, largest), strict=True))


def with_tensorrt_options(providers: Providers, more: Mapping[str, str]) -> Providers:
    """Add options to those of the TensorRT provider, which is the first."""
    (name, options), *others = providers
    return [(name, {**options, **more}), *others]


def _session(source: str | bytes, providers: Providers, sizes: Mapping[str, int]) -> Any:
    """Create a session in which named dimensions have fixed sizes."""
    settings = session_settings(1)
    for name, size in sizes.items():
        settings.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(source, settings, providers=providers)
    session.disable_fallback()
    wanted, there = providers[0][0], session.get_providers()
    if wanted not in there:
        raise ValueError(
            f"ONNX Runtime could not start {wanted} and fell back to {', '.join(there)}: its "
            "libraries (CUDA, cuDNN, for TensorRT also TensorRT) are missing or of another version"
        )
    return session


RUNTIME = OrtGpuRuntime()

"""``ort-cuda`` and ``ort-tensorrt``: ONNX Runtime's providers for NVIDIA GPUs."""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from hwsearch.devices.base import Fingerprint
from hwsearch.devices.nvidia import GpuDevice, gpu_options, missing_gpu
from hwsearch.devices.ort_cpu import build_problem, installed_builds
from hwsearch.devices.runtime import Options
from hwsearch.devices.spec import DeviceFactory
from hwsearch.quantization import FP16, FP32, MIXED

_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
    "use_tf32": "0",
}
# Timings of kernels are shared; each file gets a folder of its own for engines.
_TENSORRT_CACHES = ("trt_engine_cache_path", "trt_timing_cache_path")
_TENSORRT_OPTIONS = {
    "trt_engine_cache_enable": "True",
    "trt_timing_cache_enable": "True",
    "trt_builder_optimization_level": "3",
    "trt_int8_enable": "False",
}


class OrtGpu(GpuDevice):
    """Times and runs models with ``provider`` of onnxruntime-gpu; see `GpuDevice`.

    The precision is that of the file: TF32 is off, and float16 is allowed to TensorRT for fp16
    files alone, which it refuses otherwise. A node that TensorRT does not support runs on the CUDA
    provider.
    """

    def __init__(self, provider: str, **options: Any) -> None:
        factory = CUDA if provider == _CUDA else TENSORRT
        super().__init__(factory, options, "hwsearch.devices.ort_gpu_runtime:RUNTIME")
        self._provider = provider

    def describe(self, version: str) -> Fingerprint:
        """Return GPU, driver, runtime and provider options."""
        described = {
            **self.describe_gpu(),
            "runtime": f"onnxruntime-gpu {version}",
            "provider": self._provider,
        }
        if self._provider == _CUDA:
            settings = "exhaustive algorithm search, largest workspace"
            return {**described, "provider options": settings}
        found = [f"{name} {text}" for name, text in installed_builds(_TENSORRT_PACKAGES).items()]
        package = next(iter(found), "none")
        return {**described, "tensorrt": package, "provider options": "optimisation level 3"}

    def options(self, *, timed: bool) -> Options:
        """Return the GPU and the providers with their options."""
        device = {"device_id": str(self.device_id)}
        providers = [(_CUDA, {**device, **_CUDA_OPTIONS})]
        if self._provider == _TENSORRT:
            own = dict.fromkeys(_TENSORRT_CACHES, str(self.engines()))
            own["trt_fp16_enable"] = str(self.precision == "fp16")
            providers.insert(0, (_TENSORRT, {**device, **own, **_TENSORRT_OPTIONS}))
        return {**super().options(timed=timed), "providers": providers}


def missing_provider(provider: str) -> str | None:
    """Return the missing requirement of a provider on this machine, None where it can be used."""
    problems = [missing_gpu(), build_problem("onnxruntime-gpu", provider)]
    if any(problems):
        return "; ".join(filter(None, problems))
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    if provider not in providers:
        return (
            f"this build of onnxruntime-gpu ({installed_builds()['onnxruntime-gpu']}) has no "
            f"{provider}, only {', '.join(providers)}: pip install --force-reinstall "
            "'hwsearch[gpu]'"
        )
    if provider == _TENSORRT and find_spec("tensorrt") is None:
        return (
            "the TensorRT libraries that onnxruntime-gpu loads are not installed: "
            "pip install 'hwsearch[gpu,tensorrt]' 'tensorrt<11'"
        )
    return None


def _factory(
    name: str, provider: str, precisions: Sequence[str], mixes: Sequence[str] = ()
) -> DeviceFactory:
    return DeviceFactory(
        name=name,
        create=partial(OrtGpu, provider),
        available=lambda: missing_provider(provider),
        options=gpu_options(*precisions),
        mixes=tuple(mixes),
        untested=True,
    )


CUDA = _factory("ort-cuda", _CUDA, (FP32, FP16, MIXED), (FP16, FP32))
# Whether it may compute in float16 is an option of its provider, and no property of a file.
TENSORRT = _factory("ort-tensorrt", _TENSORRT, (FP32, FP16))

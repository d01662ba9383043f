"""``ort-tensorrt``: ONNX Runtime's TensorRT provider on an NVIDIA GPU."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwsearch.devices.base import DeviceFactory, Fingerprint
from hwsearch.devices.fingerprint import installed_version
from hwsearch.devices.gpu_device import GpuDevice, gpu_options
from hwsearch.devices.ort_cuda import cuda_provider, missing_provider
from hwsearch.devices.runtime import Options

TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


class OrtTensorRt(GpuDevice):
    """Times and runs models with onnxruntime-gpu's TensorRT provider; see `GpuDevice`.

    Precision is the file's, and nothing of the provider's own changes it. What TensorRT cannot
    take of a model, the CUDA provider runs.

    Args:
        values: A value for each declared option.
    """

    def __init__(self, **values: Any) -> None:
        super().__init__(DEVICE, values, "hwsearch.devices.ort_gpu_runtime:RUNTIME")

    def describe(self, version: str) -> Fingerprint:
        """GPU, driver, runtime and provider options."""
        return {
            **super().describe(version),
            "runtime": f"onnxruntime-gpu {version}",
            "provider": "TensorrtExecutionProvider",
            "tensorrt": installed_version(TENSORRT_PACKAGES),
            "provider options": "optimisation level 3",
        }

    def options(self, *, timed: bool) -> Options:
        """The GPU and the providers with their options."""
        providers = [tensorrt_provider(self.device_id, self.engines())]
        more = {"providers": [*providers, cuda_provider(self.device_id)]}
        return {**super().options(timed=timed), **more}


def tensorrt_provider(device_id: int, engines: Path) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's TensorRT provider and its options, as documented there.

    ONNX Runtime names an engine after the structure of its model, not after its weights, so that
    the runtime gives each file a folder of its own in ``engines``; timings of kernels are shared.

    Args:
        device_id: As CUDA counts GPUs.
        engines: A folder of this device's fingerprint.
    """
    return (
        "TensorrtExecutionProvider",
        {
            "device_id": str(device_id),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(engines),
            "trt_builder_optimization_level": "3",
            "trt_fp16_enable": "False",
            "trt_int8_enable": "False",
        },
    )


def _missing() -> str | None:
    problem = missing_provider("TensorrtExecutionProvider")
    if problem is None and find_spec("tensorrt") is None:
        return (
            "the TensorRT libraries that onnxruntime-gpu loads are not installed: "
            "pip install 'hwsearch[gpu,tensorrt]'"
        )
    return problem


DEVICE = DeviceFactory(
    name="ort-tensorrt",
    create=OrtTensorRt,
    available=_missing,
    options=gpu_options(("fp32", "fp16")),
    untested=True,
)

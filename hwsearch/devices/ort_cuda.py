"""``ort-cuda``: ONNX Runtime's CUDA provider on an NVIDIA GPU."""

from typing import Any

from hwsearch.devices.base import DeviceFactory, Fingerprint
from hwsearch.devices.gpu_device import GpuDevice, gpu_options
from hwsearch.devices.nvidia import missing_gpu
from hwsearch.devices.ort_installation import installed_builds, missing_build, mixed_builds
from hwsearch.devices.runtime import Options


class OrtCuda(GpuDevice):
    """Times and runs models with onnxruntime-gpu's CUDA provider; see `GpuDevice`.

    Precision is the file's: float32 stays float32, as TF32 is off.

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
            "provider": "CUDAExecutionProvider",
            "provider options": "exhaustive algorithm search, largest workspace",
        }

    def options(self, *, timed: bool) -> Options:
        """The GPU and the provider with its options."""
        return {**super().options(timed=timed), "providers": [cuda_provider(self.device_id)]}


def cuda_provider(device_id: int) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's CUDA provider and its options, as documented there.

    Args:
        device_id: As CUDA counts GPUs.
    """
    return (
        "CUDAExecutionProvider",
        {
            "device_id": str(device_id),
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "do_copy_in_default_stream": "1",
            "use_tf32": "0",
        },
    )


def missing_provider(provider: str) -> str | None:
    """Say what a provider of onnxruntime-gpu lacks on this machine, None where it lacks nothing.

    Args:
        provider: Its name in ONNX Runtime.
    """
    problems = [missing_gpu(), mixed_builds() or missing_build("onnxruntime-gpu", "gpu", provider)]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        return found
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if provider in there:
        return None
    version = installed_builds()["onnxruntime-gpu"]
    return (
        f"this build of onnxruntime-gpu ({version}) has no {provider}, only {', '.join(there)}: "
        "pip install --force-reinstall 'hwsearch[gpu]'"
    )


DEVICE = DeviceFactory(
    name="ort-cuda",
    create=OrtCuda,
    available=lambda: missing_provider("CUDAExecutionProvider"),
    options=gpu_options(("fp32", "fp16")),
    untested=True,
)

"""``tensorrt``: TensorRT 10 or 11 on an NVIDIA GPU."""

from importlib.util import find_spec
from typing import Any

from hwsearch.devices.base import Fingerprint
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.nvidia import GpuDevice, gpu_options, missing_gpu
from hwsearch.devices.runtime import Options
from hwsearch.devices.spec import DeviceFactory
from hwsearch.quantization import FP16, FP32, INT8, MIXED


class TensorRt(GpuDevice):
    """Times and runs models with TensorRT; see `GpuDevice`.

    Networks are strongly typed, so that the precision is the file's. The engine of a timed model
    is stored next to its ONNX file, or in the cache where that folder cannot be written; engines
    of other runs and the timing cache are in the cache.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(DEVICE, options, "hwsearch.devices.tensorrt_runtime:RUNTIME")

    def describe(self, version: str) -> Fingerprint:
        """Return GPU, driver, runtime and builder settings."""
        return {
            **self.describe_gpu(),
            "runtime": f"tensorrt {version}",
            "builder": "strongly typed, optimisation level 3",
        }

    def options(self, *, timed: bool) -> Options:
        """Return the GPU and the folder of engines."""
        kept = {"engines": str(self.engines()), "key": digest(self.fingerprint())}
        return {**super().options(timed=timed), **kept, "beside": timed}


def _missing() -> str | None:
    problems, lacking = [missing_gpu()], [] if find_spec("tensorrt") else ["tensorrt"]
    if not (find_spec("cuda") and find_spec("cuda.bindings")):
        lacking.append("cuda.bindings")
    if lacking:
        named = " and ".join(lacking)
        problems.append(f"{named} cannot be imported: pip install 'hwsearch[tensorrt]'")
    return "; ".join(filter(None, problems)) or None


DEVICE = DeviceFactory(
    name="tensorrt",
    create=TensorRt,
    available=_missing,
    options=gpu_options(FP32, FP16, MIXED),
    mixes=(INT8, FP16, FP32),
    untested=True,
)

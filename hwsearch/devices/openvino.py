"""``openvino``: OpenVINO's CPU plugin on this machine's processor."""

from importlib.util import find_spec

from hwsearch.devices.anchor import anchors
from hwsearch.devices.base import Fingerprint
from hwsearch.devices.runtime import Options
from hwsearch.devices.spec import (
    BATCH,
    DeviceFactory,
    DeviceOption,
    OptionValue,
    parse_options,
    precision_option,
)
from hwsearch.devices.worker_device import THREADS, CpuDevice
from hwsearch.errors import DeviceError, InputError
from hwsearch.quantization import FP32, INT8, MIXED


class OpenVino(CpuDevice):
    """Times and runs models with OpenVINO's CPU plugin; see `CpuDevice`.

    With ``hint="latency"`` a timed run is one request. With ``hint="throughput"`` it is as many
    concurrent requests as OpenVINO recommends, and its time is divided by their number:
    milliseconds per inference at full load, not the time until an answer. Profiles are of single
    requests.

    With ``precision="bf16"`` it computes float32 files in bfloat16, timed or not, where the
    processor has instructions for it; InputError is raised where it has none.
    """

    def __init__(self, **options: OptionValue) -> None:
        values = parse_options(DEVICE, options)
        self._hint: str = values["hint"]
        # Concurrent requests run on OpenVINO's own threads, whose waiting is not recorded.
        account = self._hint == "latency"
        super().__init__(
            DEVICE, values, "hwsearch.devices.openvino_runtime:RUNTIME", account=account
        )
        if self.precision == "bf16":
            self._check_bf16()

    def options(self, *, timed: bool) -> Options:
        """Return threads, hint and the precision of computation."""
        hint = self._hint if timed else "latency"
        return {**super().options(timed=timed), "hint": hint, "computes": self._computes}

    def describe(self, version: str) -> Fingerprint:
        """Return runtime, properties and threads."""
        return {
            "runtime": f"openvino {version}",
            "plugin": "CPU",
            "properties": f"PERFORMANCE_HINT={self._hint.upper()} "
            f"INFERENCE_PRECISION_HINT={self._computes} ENABLE_CPU_PINNING=NO",
            "threads": self.threads,
        }

    @property
    def _computes(self) -> str:
        """Return OpenVINO's name of the type in which it computes what is not int8."""
        return "bf16" if self.precision == "bf16" else "f32"

    def _check_bf16(self) -> None:
        """Let the runtime refuse bf16, in a worker process: nothing else imports OpenVINO."""
        with self._start() as worker:
            try:
                worker.call("load", anchors()[0], None, self.options(timed=False))
            except DeviceError as error:
                raise InputError(f"device {self.spec!r} cannot be used here: {error}") from error


DEVICE = DeviceFactory(
    name="openvino",
    create=OpenVino,
    available=lambda: (
        None
        if find_spec("openvino")
        else "the package openvino is not installed: pip install 'hwsearch[openvino]'"
    ),
    options=(
        THREADS,
        DeviceOption(
            name="hint",
            default="latency",
            help="latency: one request; throughput: as many at once as OpenVINO recommends",
            allowed=("latency", "throughput"),
        ),
        BATCH,
        precision_option(FP32, INT8, "bf16", MIXED),
    ),
    mixes=(INT8, FP32),
)

"""``openvino``: OpenVINO's CPU plugin on this machine's processor."""

from importlib.util import find_spec

from hwsearch.devices.base import Fingerprint
from hwsearch.devices.fingerprint import choose_cpus
from hwsearch.devices.spec import (
    BATCH,
    DeviceFactory,
    DeviceOption,
    OptionValue,
    parse_options,
    precision_option,
)
from hwsearch.devices.worker_device import CpuDevice, threads_option
from hwsearch.machine import thread_limit


class OpenVino(CpuDevice):
    """Times and runs models with OpenVINO's CPU plugin; see `hwsearch.devices.base.Device`.

    With ``hint="latency"`` a timed run is one request. With ``hint="throughput"`` it is as many
    concurrent requests as OpenVINO recommends, and its time is divided by their number:
    milliseconds per inference at full load, not the time until an answer. Profiles are of single
    requests.
    """

    def __init__(self, **options: OptionValue) -> None:
        values = parse_options(DEVICE, options)
        self._threads: int = values["threads"]
        self._hint: str = values["hint"]
        super().__init__(
            DEVICE,
            values,
            "hwsearch.devices.openvino_runtime:RUNTIME",
            timed={"threads": self._threads, "hint": self._hint},
            untimed={"threads": thread_limit(), "hint": "latency"},
            cpus=choose_cpus(self._threads),
            account=self._hint == "latency",  # concurrent requests run on OpenVINO's own threads
        )

    def describe(self, version: str) -> Fingerprint:
        """Return runtime, properties and threads."""
        return {
            "runtime": f"openvino {version}",
            "plugin": "CPU",
            "properties": f"PERFORMANCE_HINT={self._hint.upper()} INFERENCE_PRECISION_HINT=f32 "
            "ENABLE_CPU_PINNING=NO",
            "threads": self._threads,
        }


def _missing() -> str | None:
    if find_spec("openvino") is None:
        return "the package openvino is not installed: pip install 'hwsearch[openvino]'"
    return None


DEVICE = DeviceFactory(
    name="openvino",
    create=OpenVino,
    available=_missing,
    options=(
        threads_option(),
        DeviceOption(
            name="hint",
            default="latency",
            help="latency: one request; throughput: as many at once as OpenVINO recommends",
            allowed=("latency", "throughput"),
        ),
        BATCH,
        precision_option("fp32", "int8"),
    ),
)

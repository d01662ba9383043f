"""``openvino``: OpenVINO on this machine's processor, through its own interface."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from hwsearch.devices.base import (
    DeviceFactory,
    DeviceOption,
    Fingerprint,
    OptionValue,
    Profile,
    canonical_spec,
)
from hwsearch.devices.fingerprint import choose_cpus
from hwsearch.devices.worker_device import WorkerDevice
from hwsearch.errors import DeviceError
from hwsearch.machine import thread_limit, usable_cpus


class OpenVino(WorkerDevice):
    """Times and runs models with OpenVINO's CPU plugin; see `hwsearch.devices.base.Device`.

    With ``hint="latency"`` a timed run is one request. With ``hint="throughput"`` it is as many
    requests at once as OpenVINO recommends for these threads, and its time is divided by their
    number: milliseconds per inference of a machine that is kept busy, not how long one waits for
    an answer.

    Args:
        threads: Threads of a timed run, on as many CPUs where the system has affinity.
        hint: What OpenVINO optimises for: latency or throughput.
        batch: What a dynamic batch is fixed to when a model is timed.
        precision: Of the files that it takes: fp32 or int8 (quantise and dequantise nodes).
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        hint: str = "latency",
        batch: int = 1,
        precision: str = "fp32",
    ) -> None:
        values: dict[str, OptionValue] = {
            "threads": threads,
            "hint": hint,
            "batch": batch,
            "precision": precision,
        }
        spec, slug = canonical_spec(DEVICE.name, DEVICE.options, values)
        super().__init__(
            spec=spec,
            slug=slug,
            precision=precision,
            batch=batch,
            runtime="hwsearch.devices.openvino_runtime:RUNTIME",
            timed={"threads": threads, "hint": hint},
            untimed={"threads": thread_limit(), "hint": "latency"},
            cpus=choose_cpus(threads),
            account=hint == "latency",  # else the runs are work of OpenVINO's own threads
        )
        self._threads, self._hint = threads, hint

    def describe(self, version: str) -> Fingerprint:
        """Runtime, properties and threads."""
        return {
            "runtime": f"openvino {version}",
            "plugin": "CPU",
            "properties": f"PERFORMANCE_HINT={self._hint.upper()} INFERENCE_PRECISION_HINT=f32 "
            "ENABLE_CPU_PINNING=NO",
            "threads": self._threads,
        }

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models; see `hwsearch.devices.base.Profiling.profile`.

        Single requests are profiled, as with ``hint="latency"``.
        """
        return self._profiled(models, runs)


def _missing() -> str | None:
    if find_spec("openvino") is None:
        return "the package openvino is not installed: pip install 'hwsearch[openvino]'"
    return None


DEVICE = DeviceFactory(
    name="openvino",
    create=OpenVino,
    available=_missing,
    options=(
        DeviceOption(
            name="threads",
            default=1,
            help="threads of a timed run",
            high=len(usable_cpus()),
            shown=True,
        ),
        DeviceOption(
            name="hint",
            default="latency",
            help="latency: one request; throughput: as many at once as OpenVINO recommends",
            allowed=("latency", "throughput"),
        ),
        DeviceOption(name="batch", default=1, help="batch size of a timed run"),
        DeviceOption(
            name="precision",
            default="fp32",
            help="precision of the ONNX files: fp32 or int8",
            allowed=("fp32", "int8"),
        ),
    ),
)

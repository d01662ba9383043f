"""Devices of other machines: latencies are measured elsewhere, and outputs computed here.

``kit:FILE`` is such a device, given by the latency table of a kit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hwsearch.devices import Device, MeasureSettings, load_device, load_factory
from hwsearch.devices.base import Fingerprint, Latency, Progress, SharedInference
from hwsearch.devices.ort_cpu import DEVICE as ORT_CPU
from hwsearch.devices.runtime import Feeds
from hwsearch.devices.spec import DeviceFactory, file_precision, respelled, split_name
from hwsearch.errors import DeviceError, InputError
from hwsearch.kit.manifest import CONFIRM, TABLE
from hwsearch.kit.results import check_complete, read_results
from hwsearch.quantization import FP32

Latencies = dict[str, Latency | DeviceError]


class DeviceInfo(NamedTuple):
    """The attributes of a device; see `Device`."""

    spec: str
    slug: str
    precision: str
    fingerprint: Fingerprint

    @classmethod
    def of(cls, device: Device) -> "DeviceInfo":
        """Return the attributes of a device."""
        return cls(device.spec, device.slug, device.precision, device.fingerprint())


Measure = Callable[
    [DeviceInfo, Mapping[str, Path], int, MeasureSettings, Progress | None], Latencies
]
"""See `Device.measure`; another machine that does not report rounds ignores the last argument."""


class RemoteDevice:
    """Measures latencies by ``measure`` and computes outputs by a local device; see `Device`.

    ``local`` is that device, or the reason why there is none; by default `output_device`.
    """

    def __init__(
        self,
        info: DeviceInfo,
        measure: Measure,
        *,
        local: Device | InputError | None = None,
        disconnect: Callable[[], None] | None = None,
    ) -> None:
        self._local = output_device(info) if local is None else local
        self.spec, self.slug, self.precision = info.spec, info.slug, info.precision
        self._info, self._measure, self._disconnect = info, measure, disconnect
        if isinstance(self._local, SharedInference):
            self.run_shared = self._local.run_shared

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the device that measures."""
        return dict(self._info.fingerprint)

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,
    ) -> Latencies:
        """Measure models remotely; see `Device.measure`."""
        return self._measure(self._info, models, seed, settings or MeasureSettings(), progress)

    def with_batch(self, batch: int) -> "RemoteDevice":
        """Return the device with another batch size; see `hwsearch.devices.with_batch`."""
        info = self._info._replace(
            spec=respelled(self.spec, batch=batch),
            fingerprint={**self._info.fingerprint, "batch": batch},
        )
        return RemoteDevice(info, self._measure, local=self._local)

    def run(self, model: Path, batches: Iterable[Feeds]) -> Iterator[list[NDArray[Any]]]:
        """Run a model on this machine; see `Device.run`."""
        return self.outputs().run(model, batches)

    def outputs(self) -> Device:
        """Return the device of this machine that computes outputs, or raise why there is none."""
        if isinstance(self._local, InputError):
            raise self._local
        return self._local

    def close(self) -> None:
        """Close the local device and the connection."""
        if not isinstance(self._local, InputError):
            self._local.close()
        if self._disconnect is not None:
            self._disconnect()


def output_device(info: DeviceInfo) -> Device:
    """Return the device of this machine that computes the outputs of another machine's device.

    Where this machine lacks that device (for example, has fewer processors than the device has
    threads), it is one of the same runtime and precision, which determine the outputs.
    """
    try:
        return load_device(info.spec)
    except InputError:
        name, _ = split_name(info.spec)
        has_precision = any(o.name == "precision" for o in load_factory(name).options)
        return load_device(f"{name}:precision={info.precision}" if has_precision else name)


class KitDevice(RemoteDevice):
    """The device that a kit measured; a search predicts its latencies, and ends with candidates.

    Attributes:
        table: The latency table in the results file.
        content: Digest of the file.

    Raises:
        InputError: The file is no complete table of a kit, or was changed.
    """

    def __init__(self, path: str) -> None:
        self.table, facts = read_results(Path(path))
        if facts.purpose == CONFIRM:
            raise InputError(
                f"{path!r} holds the timings of a run's candidates; give them to "
                f"'hwsearch confirm RUN {path}'"
            )
        if facts.purpose != TABLE:
            raise InputError(
                f"{path!r} is an unfinished latency table of 'hwsearch profile'; give the table "
                "of a kit"
            )
        check_complete(facts, Path(path))
        self.content = facts.content
        own = {"device": self.table.device, "table": self.content}
        info = DeviceInfo(
            spec=f"{DEVICE.name}:{path}",
            slug=f"{DEVICE.name}-{self.table.slug}",
            precision=str(self.table.fingerprint.get("precision", FP32)),
            fingerprint={**self.table.fingerprint, **own},
        )
        if file_precision(info.precision) == info.precision:
            local = ORT_CPU.create()
            local.precision = info.precision  # the processor runs fp16 files, too
        else:
            local = output_device(info._replace(spec=self.table.device))
        super().__init__(info, _refuse, local=local)


def _refuse(info: DeviceInfo, *_: object) -> Latencies:
    raise DeviceError(
        f"{info.spec} stands for {info.fingerprint['device']} on another machine, where a model "
        "can only be measured by a kit; 'hwsearch search' makes one for its candidates"
    )


DEVICE = DeviceFactory(
    name="kit",
    create=KitDevice,
    available=ORT_CPU.available,
    takes="TABLE.json",
)

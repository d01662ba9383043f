"""A device whose latencies are measured on another machine."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hwsearch.devices import Device, Latency, MeasureSettings, load_device, load_factory
from hwsearch.devices.base import Fingerprint, Progress, SharedInference
from hwsearch.devices.spec import split_name
from hwsearch.errors import DeviceError, InputError

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


Measure = Callable[[DeviceInfo, Mapping[str, Path], int, MeasureSettings], Latencies]


class RemoteDevice:
    """Measures latencies by ``measure`` and computes outputs on this machine; see `Device`."""

    def __init__(
        self, info: DeviceInfo, measure: Measure, disconnect: Callable[[], None] | None = None
    ) -> None:
        self._local = output_device(info.spec, info.precision)
        self.spec, self.slug, self.precision = info.spec, info.slug, self._local.precision
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
        progress: Progress | None = None,  # noqa: ARG002 - rounds are not reported remotely
    ) -> Latencies:
        """Measure models remotely; see `Device.measure`."""
        return self._measure(self._info, models, seed, settings or MeasureSettings())

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model on this machine; see `Device.run`."""
        return self._local.run(model, batches)

    def close(self) -> None:
        """Close the local device and the connection."""
        self._local.close()
        if self._disconnect is not None:
            self._disconnect()


def output_device(spec: str, precision: str) -> Device:
    """Return the device of this machine that computes the outputs of another machine's device.

    Where this machine lacks that device (for example, has fewer processors than the device has
    threads), it is one of the same runtime and precision, which determine the outputs.
    """
    try:
        return load_device(spec)
    except InputError:
        name, _ = split_name(spec)
        has_precision = any(o.name == "precision" for o in load_factory(name).options)
        return load_device(f"{name}:precision={precision}" if has_precision else name)

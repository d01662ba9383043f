"""A device that times models on another machine than the one that runs them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices import Device, Latency, MeasureSettings, load_device, load_factory
from hwsearch.devices.base import Fingerprint, Sharing, split_name
from hwsearch.devices.protocol import Progress
from hwsearch.errors import DeviceError, InputError

Latencies = dict[str, Latency | DeviceError]
Timing = Callable[[Mapping[str, Path], int, MeasureSettings], Latencies]


class Elsewhere:
    """What a device is on the machine that times, and outputs from here; see `Device`.

    Args:
        here: Runs models; of the same precision.
        spec: The device as written down.
        slug: The same for file names.
        fingerprint: What decides latencies there.
        timing: Times models there, by name and file, seed and settings.
        leave: Called when it is closed.
    """

    def __init__(
        self,
        here: Device,
        *,
        spec: str,
        slug: str,
        fingerprint: Fingerprint,
        timing: Timing,
        leave: Callable[[], None] | None = None,
    ) -> None:
        self.spec, self.slug, self.precision = spec, slug, here.precision
        self._here, self._fingerprint = here, fingerprint
        self._timing, self._leave = timing, leave
        if isinstance(here, Sharing):
            self.run_together = here.run_together

    def fingerprint(self) -> Fingerprint:
        """What decides latencies there."""
        return dict(self._fingerprint)

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,  # noqa: ARG002 - nobody tells of rounds from afar
    ) -> Latencies:
        """Time models there; see `Device.measure`."""
        return self._timing(models, seed, settings or MeasureSettings())

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model here; see `Device.run`."""
        return self._here.run(model, batches)

    def close(self) -> None:
        """End what runs models here."""
        self._here.close()
        if self._leave is not None:
            self._leave()


def runner(spec: str, precision: str) -> Device:
    """Return a device that gives the outputs of another one, on this machine.

    It is the same device where this machine can be it; else, as with more threads than there are
    processors here, one of the same runtime and precision, which alone decide the outputs.

    Raises:
        InputError: This machine lacks the runtime.
    """
    try:
        return load_device(spec)
    except InputError:
        name, _ = split_name(spec)
        has_precision = any(o.name == "precision" for o in load_factory(name).options)
        return load_device(f"{name}:precision={precision}" if has_precision else name)


def differences(was: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Say what of a fingerprint differs; empty where nothing does."""
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return "; ".join(f"{name} was {was.get(name)}, is {now.get(name)}" for name in names)

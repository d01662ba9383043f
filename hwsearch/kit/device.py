"""``kit:FILE``: the device of another machine, given by the latency table of a kit."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices.base import Fingerprint, Latency, MeasureSettings, Progress
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.ort_cpu import DEVICE as ORT_CPU
from hwsearch.devices.spec import DeviceFactory
from hwsearch.errors import DeviceError, InputError
from hwsearch.kit.manifest import CONFIRM, PRECISION, TABLE
from hwsearch.kit.results_file import check_complete, read_results


class KitDevice:
    """Computes outputs on this machine and measures nothing; see `hwsearch.devices.base.Device`.

    A search predicts latencies from the table, and ends with candidates.

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
        self.spec = f"{DEVICE.name}:{path}"
        self.slug = f"{DEVICE.name}-{self.table.slug}"
        self.precision = PRECISION
        self.content = facts.content
        self._local: Any = None

    @property
    def measured_on(self) -> tuple[str, str]:
        """Return the spec of the measured device, and the digest of its fingerprint."""
        return self.table.device, digest(self.table.fingerprint)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the measured device, and the digest of the table."""
        return {**self.table.fingerprint, "device": self.table.device, "table": self.content}

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Raise DeviceError: the measured device is on another machine."""
        del models, seed, settings, progress
        raise DeviceError(
            f"{self.spec} stands for {self.table.device} on another machine, where a model can "
            "only be measured by a kit; 'hwsearch search' makes one for its candidates"
        )

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model on this machine; see `hwsearch.devices.base.Device.run`."""
        if self._local is None:
            self._local = ORT_CPU.create()
        yield from self._local.run(model, batches)

    def close(self) -> None:
        """Close the local device."""
        if self._local is not None:
            self._local.close()


DEVICE = DeviceFactory(
    name="kit",
    create=KitDevice,
    available=ORT_CPU.available,
    takes="TABLE.json",
)

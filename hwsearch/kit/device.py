"""``kit:FILE``: a machine that is elsewhere, known by what a kit measured on it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hwsearch.devices.base import DeviceFactory, Fingerprint, Latency
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.ort_cpu import DEVICE as ORT_CPU
from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.errors import DeviceError, InputError
from hwsearch.kit.manifest import PRECISION, TABLE
from hwsearch.kit.results_file import check_complete, read_results


class KitDevice:
    """Runs models here and measures none; see `hwsearch.devices.base.Device`.

    A search predicts its latencies from the table, and ends with candidates.

    Args:
        path: The table that a kit wrote.

    Attributes:
        table: What was measured, with the device that it was measured on.
        content: Digest of the file.

    Raises:
        InputError: The file is none of a kit, was changed, is not complete, or holds the timings
            of a run's candidates.
    """

    def __init__(self, path: str) -> None:
        self.table, facts = read_results(Path(path))
        if facts.purpose != TABLE:
            raise InputError(
                f"{path!r} holds the timings of a run's candidates; give them to "
                f"'hwsearch confirm RUN {path}'"
            )
        check_complete(facts, Path(path))
        self.spec = f"{DEVICE.name}:{path}"
        self.slug = f"{DEVICE.name}-{self.table.slug}"
        self.precision = PRECISION
        self.content = facts.content
        self._answers: Any = None

    @property
    def measured_on(self) -> tuple[str, str]:
        """The device that was measured, as written down, and the digest of its fingerprint."""
        return self.table.device, digest(self.table.fingerprint)

    def fingerprint(self) -> Fingerprint:
        """What decides latencies there, and the table that says so."""
        return {**self.table.fingerprint, "device": self.table.device, "table": self.content}

    def measure(
        self,
        models: Mapping[str, Path],  # noqa: ARG002 - it measures none
        *,
        seed: int,  # noqa: ARG002
        settings: MeasureSettings | None = None,  # noqa: ARG002
        progress: Progress | None = None,  # noqa: ARG002
    ) -> dict[str, Latency | DeviceError]:
        """Refuse.

        Raises:
            DeviceError: Always: the machine is elsewhere.
        """
        raise DeviceError(
            f"{self.spec} stands for {self.table.device} on another machine, where a model can "
            "only be measured by a kit; 'hwsearch search' makes one for its candidates"
        )

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model on this machine; see `hwsearch.devices.base.Device.run`."""
        if self._answers is None:
            self._answers = ORT_CPU.create()
        yield from self._answers.run(model, batches)

    def close(self) -> None:
        """End the process that runs models."""
        if self._answers is not None:
            self._answers.close()


DEVICE = DeviceFactory(
    name="kit",
    create=KitDevice,
    available=ORT_CPU.available,
    takes="TABLE.json",
)

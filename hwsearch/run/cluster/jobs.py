"""What a worker is asked and what it answers, as JSON headers and arrays: nothing is pickled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from hwsearch.devices.frames import Arrays, Header
from hwsearch.errors import EvaluationError
from hwsearch.evaluation.evaluator import Values
from hwsearch.space import Architecture
from hwsearch.trials import Measurement

_FIELDS = tuple(each.name for each in fields(Measurement) if each.name != "samples")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a worker has to know of the search besides its settings.

    Attributes:
        measurements: Of the architectures that it works on.
        pace: The highest pace of latencies believed so far, and how many there were; see
            `hwsearch.evaluation.outliers.Pace`.
    """

    measurements: tuple[Measurement, ...] = ()
    pace: tuple[float, int] = (0.0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Architectures, and what is to be found out about them.

    Attributes:
        archs: Distinct.
        quantities: ``"latency"``, the metric's name, or both.
        known: What whoever does it cannot look up.
    """

    archs: tuple[Architecture, ...]
    quantities: tuple[str, ...]
    known: Known = field(default_factory=Known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What became of a piece of work.

    Attributes:
        measurements: What was measured, to be stored.
        failed: Key -> why an architecture cannot be evaluated.
        values: Key -> values or failure, where whoever did it has stored them already.
        lost: Why whoever did it is gone; None where it is not.
    """

    measurements: tuple[Measurement, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Values | EvaluationError] = field(default_factory=dict)
    lost: str | None = None


def write_work(work: Work) -> tuple[Header, Arrays]:
    """Turn work into a message."""
    arrays: Arrays = []
    header = {
        "archs": [arch.mapping for arch in work.archs],
        "quantities": list(work.quantities),
        "measurements": _packed(work.known.measurements, arrays),
        "pace": list(work.known.pace),
    }
    return header, arrays


def read_known(header: Header, arrays: Arrays) -> Known:
    """Return what a message of `write_work` says besides what is to be done."""
    highest, known = header["pace"]
    return Known(
        measurements=_unpacked(header["measurements"], arrays),
        pace=(highest, known),
    )


def write_findings(findings: Findings) -> tuple[Header, Arrays]:
    """Turn measurements and failures into a message."""
    arrays: Arrays = []
    packed = _packed(findings.measurements, arrays)
    return {"measurements": packed, "failed": dict(findings.failed)}, arrays


def read_findings(header: Header, arrays: Arrays) -> Findings:
    """Return what a message of `write_findings` says."""
    measurements = _unpacked(header["measurements"], arrays)
    return Findings(measurements=measurements, failed=header["failed"])


def _packed(measurements: Sequence[Measurement], arrays: Arrays) -> list[dict[str, Any]]:
    """Return measurements as JSON values; their samples are added to the arrays."""
    packed = []
    for measurement in measurements:
        row = {name: getattr(measurement, name) for name in _FIELDS}
        row["samples"] = None
        if measurement.samples is not None:
            row["samples"] = len(arrays)
            arrays.append(measurement.samples)
        packed.append(row)
    return packed


def _unpacked(packed: Sequence[Mapping[str, Any]], arrays: Arrays) -> tuple[Measurement, ...]:
    found = []
    for row in packed:
        place = row["samples"]
        samples = None if place is None else arrays[place]
        found.append(Measurement(**{**row, "samples": samples}))
    return tuple(found)

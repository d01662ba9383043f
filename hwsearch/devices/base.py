"""What a device is, what it answers, and how one is written down.

A device is registered in the entry-point group ``hwsearch.devices`` as a `DeviceFactory`. Written
down it is ``NAME`` or ``NAME:OPTION=VALUE,OPTION=VALUE``, with the options that the factory
declares.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwsearch.devices.protocol import MeasureSettings, Progress
from hwsearch.errors import DeviceError, InputError, unknown

OptionValue = int | str
Fingerprint = dict[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latency:
    """One model's latency on one device.

    ``ratio`` is relative to the anchor model in the same rounds: compare models by it. The
    milliseconds are the ratio times the anchor's baseline, the anchor's own time on this device
    when the baseline was taken: compare limits with them.

    Attributes:
        device: The device as written down, with its options.
        fingerprint: Digest of the device's fingerprint.
        inputs: Names, types and shapes of the inputs that were given.
        latency_ms: Median (p50): ratio x baseline.
        low_ms: Low end of its 95% interval, the baseline's uncertainty included.
        high_ms: High end.
        ratio: Median of the time relative to the anchor's in the same round, over the rounds that
            count.
        ratio_low: Low end of its 95% interval.
        ratio_high: High end.
        p90_ms: 90th percentile of single runs on the same scale as ``latency_ms``.
        p99_ms: 99th percentile.
        rounds: Rounds measured.
        runs: Single runs measured.
        cv: Standard deviation over mean of ``ratios``.
        waited: Share of the wall time that went to waiting for a CPU that other work had, and is
            taken out of all times; None where the system does not tell.
        anchor_ms: The anchor's median time in this job.
        baseline_ms: The anchor's baseline.
        baseline_low_ms: Low end of its 95% interval.
        baseline_high_ms: High end.
        warnings: What makes the numbers doubtful, why, and what helps; one sentence each.
        ratios: (rounds,) time relative to the anchor's, per round.
        counted: (rounds,) which rounds count: those in which neither this model nor the anchor
            was disturbed by other work; None for all.
        times_ms: (rounds, runs per round) times of single runs, not scaled to the baseline.
        cost_s: This model's share of the time that measuring took.
        device_ms: Median time on the device alone, inputs and outputs lying there; None where
            the device is the machine's own processor, as in the two fields below.
        end_to_end_ms: Median time with the inputs copied to the device and the outputs back.
        transfers: Which of the two ``latency_ms`` is: "excluded" or "included".
    """

    device: str
    fingerprint: str
    inputs: str
    latency_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    p90_ms: float
    p99_ms: float
    rounds: int
    runs: int
    cv: float
    waited: float | None
    anchor_ms: float
    baseline_ms: float
    baseline_low_ms: float
    baseline_high_ms: float
    warnings: tuple[str, ...]
    ratios: NDArray[np.float64]
    times_ms: NDArray[np.float64]
    cost_s: float
    device_ms: float | None = None
    end_to_end_ms: float | None = None
    transfers: str | None = None
    counted: NDArray[np.bool_] | None = None

    @property
    def undisturbed(self) -> float:
        """Share of the rounds that count."""
        return 1.0 if self.counted is None else float(self.counted.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of one model's runs goes on one device.

    Attributes:
        nodes_ms: Mean kernel time of each executed node of the optimised graph over the middle
            half of the runs, by the name that the runtime gives it, in the order of execution.
        total_ms: Mean time of a whole run while profiling, which itself costs some.
    """

    nodes_ms: Mapping[str, float]
    total_ms: float


def compare(a: Latency, b: Latency) -> int:
    """Say which of two models is faster, if that can be told.

    Returns:
        -1 when ``a`` is faster, 1 when it is slower, 0 when the ratio intervals overlap.

    Raises:
        InputError: They were measured on different devices.
    """
    if (a.device, a.fingerprint) != (b.device, b.fingerprint):
        raise InputError(
            f"latencies of two devices cannot be compared: {a.device} (fingerprint "
            f"{a.fingerprint}) and {b.device} (fingerprint {b.fingerprint}); measure both on one"
        )
    if a.ratio_high < b.ratio_low:
        return -1
    if a.ratio_low > b.ratio_high:
        return 1
    return 0


class Device(Protocol):
    """A runtime on a processor with its settings, on which models are timed and run.

    A device that can say where the time goes has a method ``profile`` too: see `Profiling`.

    Attributes:
        spec: The device as written down, such as ``ort-cpu:threads=1``.
        slug: The same for file names, such as ``ort-cpu-threads1``.
        precision: Of the files that it takes, one of `hwsearch.models.precision.PRECISIONS`; it
            refuses others. Part of the fingerprint.
    """

    spec: str
    slug: str
    precision: str

    def fingerprint(self) -> Fingerprint:
        """Everything that decides a latency here, by name."""

    def measure(
        self,
        models: Mapping[str, Path],
        *,
        seed: int,
        settings: MeasureSettings = ...,
        progress: Progress | None = None,
    ) -> dict[str, Latency | DeviceError]:
        """Time models against each other, in one process of their own.

        Args:
            models: ONNX files by any distinct names.
            seed: Draws the order of turns.
            settings: Precision and limits.
            progress: Called after each round.

        Returns:
            For each name, in the order given, its latency or why there is none. A model that is
            refused, crashes or hangs does not touch the others.
        """

    def run(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Run a model and yield its outputs batch by batch, as fast as this machine can.

        Args:
            model: An ONNX file.
            batches: Input arrays by name; taken one at a time.

        Raises:
            DeviceError: The runtime refused the model or a batch, crashed or hung.
        """

    def close(self) -> None:
        """End what runs in the background; the device can be used again afterwards."""


@runtime_checkable
class Profiling(Protocol):
    """What a device has besides that can say where the time of a run goes."""

    def profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models, which run in turns in one process of their own.

        Args:
            models: ONNX files by any distinct names.
            runs: Counted runs per model.

        Returns:
            For each name, in the order given, its profile or why there is none.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What several models answer to one batch.

    Attributes:
        outputs: Name of each model -> its outputs, or why there are none.
        shares: Name -> its share of the work, of 1 in all: what several have in common is divided
            among them.
    """

    outputs: Mapping[str, list[NDArray[Any]] | DeviceError]
    shares: Mapping[str, float]


@runtime_checkable
class Sharing(Protocol):
    """What a device has besides that runs what models have in common once."""

    def run_together(
        self, models: Mapping[str, Path], batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[Answers]:
        """Run models that take the same inputs, and yield what they answer batch by batch.

        Each answers what it answers alone, to the last bit.

        Args:
            models: ONNX files by any distinct names.
            batches: Input arrays by name; taken one at a time.

        Raises:
            DeviceError: The runtime crashed or hung, on whichever model.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """One declared option of a device; its type is that of its default.

    Attributes:
        name: As written in a spec.
        default: The value when it is not given.
        help: One line for people.
        allowed: Every allowed value, where they can be listed.
        low: Smallest value of an integer option.
        high: Largest value of an integer option, None for no limit.
        shown: Whether the spec names it even when it has its default value.
    """

    name: str
    default: OptionValue
    help: str
    allowed: tuple[OptionValue, ...] = ()
    low: int = 1
    high: int | None = None
    shown: bool = False

    def parse(self, text: OptionValue, device: str) -> OptionValue:
        """Turn text into a value of this option.

        Raises:
            InputError: It is not allowed; the text says what is.
        """
        if self.allowed:
            value = next((each for each in self.allowed if str(each) == str(text)), None)
            if value is None:
                raise unknown(f"value of option {self.name!r} of {device}", text, self.allowed)
            return value
        if isinstance(self.default, str):
            return str(text)
        number = int(text) if re.fullmatch(r"[+-]?\d+", str(text).strip()) else None
        below = self.high is None or (number is not None and number <= self.high)
        if number is None or number < self.low or not below:
            limits = f"from {self.low}" + (f" to {self.high}" if self.high is not None else "")
            raise InputError(
                f"option {self.name!r} of {device} is a whole number {limits}, not {str(text)!r}"
            )
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFactory:
    """What a device's entry point names.

    Attributes:
        name: The name in specs.
        create: Makes the device from a value for every declared option.
        available: None where the device can be used, else what is missing and how to get it.
        options: The declared options, in the order of the canonical spec.
        takes: What follows the colon where that is one text and no list of options, such as the
            name of a file; ``create`` is given that text.
        untested: Whether its tests have not run on the hardware yet, which people are told.
    """

    name: str
    create: Callable[..., Device]
    available: Callable[[], str | None]
    options: tuple[DeviceOption, ...] = ()
    takes: str = ""
    untested: bool = False


def split_name(spec: str) -> tuple[str, str]:
    """Split ``NAME:REST`` or ``NAME`` into the name and what follows.

    Raises:
        InputError: There is no name.
    """
    name, _, rest = (part.strip() for part in spec.partition(":"))
    if not name:
        raise InputError(f"device {spec!r} has no name; write for example ort-cpu:threads=1")
    return name, rest


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``NAME:OPTION=VALUE,...`` into its name and the options as written.

    Raises:
        InputError: The text is not of that form, or names an option twice.
    """
    name, rest = split_name(spec)
    given: dict[str, str] = {}
    for part in rest.split(",") if ":" in spec else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not (option and equals and value):
            raise InputError(
                f"device {spec!r}: {part!r} is not of the form OPTION=VALUE; "
                "write for example ort-cpu:threads=2,batch=1"
            )
        if option in given:
            raise InputError(f"device {spec!r} gives option {option!r} twice; give it once")
        given[option] = value
    return name, given


def parse_options(factory: DeviceFactory, given: Mapping[str, OptionValue]) -> dict[str, Any]:
    """Check options against a factory's declarations and fill in the defaults.

    Raises:
        InputError: An option or its value is unknown; the text lists what is known.
    """
    declared = {option.name: option for option in factory.options}
    for name in given:
        if name not in declared:
            raise unknown(f"option of {factory.name}", name, declared)
    return {
        name: option.parse(given[name], factory.name) if name in given else option.default
        for name, option in declared.items()
    }


def canonical_spec(
    name: str, declared: Sequence[DeviceOption], values: Mapping[str, OptionValue]
) -> tuple[str, str]:
    """Write a device down: its spec and its slug.

    Options at their default are left out unless declared as shown, so that equal devices are
    written equally.
    """
    told = [
        (option.name, values[option.name])
        for option in declared
        if option.shown or values[option.name] != option.default
    ]
    spec = name + (":" + ",".join(f"{key}={value}" for key, value in told) if told else "")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([name, *(f"{k}{v}" for k, v in told)]))
    return spec, slug

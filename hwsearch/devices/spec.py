"""Device specs: ``NAME`` or ``NAME:OPTION=VALUE,...``, and the entry points that declare them.

A device is registered in the entry-point group ``hwsearch.devices`` as a `DeviceFactory`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwsearch.devices.base import Device
from hwsearch.errors import InputError, unknown
from hwsearch.quantization import MIXED

OptionValue = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """An option of a device; its type is that of its default.

    Attributes:
        help: One line for users.
        allowed: All allowed values, where they can be listed.
        low: Smallest value of an integer option.
        high: Largest value of an integer option, None for no limit.
        shown: Whether the spec includes it even at its default value.
    """

    name: str
    default: OptionValue
    help: str
    allowed: tuple[OptionValue, ...] = ()
    low: int = 1
    high: int | None = None
    shown: bool = False

    def parse(self, text: OptionValue, device: str) -> OptionValue:
        """Parse a value of this option; raise InputError where it is not allowed."""
        if self.allowed:
            for value in self.allowed:
                if str(value) == str(text):
                    return value
            raise unknown(f"value of option {self.name!r} of {device}", text, self.allowed)
        if isinstance(self.default, str):
            return str(text)
        number = int(text) if re.fullmatch(r"[+-]?\d+", str(text).strip()) else None
        if number is None or not self.low <= number <= (self.high or number):
            limits = f"from {self.low}" + (f" to {self.high}" if self.high is not None else "")
            raise InputError(
                f"option {self.name!r} of {device} is a whole number {limits}, not {str(text)!r}"
            )
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFactory:
    """Entry point of a device.

    Attributes:
        name: Name in specs.
        create: Makes the device from a value for every declared option.
        available: Returns None where the device can be used, else the missing requirement and how
            to get it.
        options: Declared options, in the order of the canonical spec.
        mixes: Precisions of blocks of the files that it takes with ``precision=mixed``; none if it
            has no such value.
        takes: Name of the text that follows the colon in place of options, such as that of a file,
            and is passed to ``create``.
        untested: Whether it has not been tested on the hardware yet, which is shown to users.
    """

    name: str
    create: Callable[..., Device]
    available: Callable[[], str | None]
    options: tuple[DeviceOption, ...] = ()
    mixes: tuple[str, ...] = ()
    takes: str = ""
    untested: bool = False


BATCH = DeviceOption(name="batch", default=1, help="batch size of a timed run")


def file_precision(precision: str) -> str:
    """Return the precision of the files of a device: bf16 is computed from float32 files."""
    return "fp32" if precision == "bf16" else precision


def precision_option(*precisions: str, shown: bool = False) -> DeviceOption:
    """Return the option for the precision of a device; the first one is the default."""
    files = [each for each in precisions if file_precision(each) == each != MIXED]
    mixed = "; mixed: files of any precision, also by block" if MIXED in precisions else ""
    rounded = [
        f"; {each}: fp32 files, run in {each}"
        for each in precisions
        if each not in (*files, MIXED)
    ]
    return DeviceOption(
        name="precision",
        default=precisions[0],
        help=f"precision of the ONNX files: {' or '.join(files)}{''.join(rounded)}{mixed}",
        allowed=precisions,
        shown=shown,
    )


def split_name(spec: str) -> tuple[str, str]:
    """Split ``NAME:REST`` or ``NAME``; raise InputError where there is no name."""
    name, _, rest = (part.strip() for part in spec.partition(":"))
    if not name:
        raise InputError(f"device {spec!r} has no name; write for example ort-cpu:threads=1")
    return name, rest


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split ``NAME:OPTION=VALUE,...``; raise InputError for another form or a repeated option."""
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


def respelled(spec: str, **changes: OptionValue) -> str:
    """Return a spec with other values of some options, which need not be canonical."""
    name, given = split_spec(spec)
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**given, **changes}.items())


def parse_options(factory: DeviceFactory, given: Mapping[str, OptionValue]) -> dict[str, Any]:
    """Fill in the defaults; raise InputError, with the known ones, for another option or value."""
    declared = {option.name: option for option in factory.options}
    for name in given:
        if name not in declared:
            raise unknown(f"option of {factory.name}", name, declared)
    return {
        name: option.parse(given[name], factory.name) if name in given else option.default
        for name, option in declared.items()
    }


def canonical_spec(factory: DeviceFactory, values: Mapping[str, OptionValue]) -> tuple[str, str]:
    """Return the spec and the slug of a device; equal devices have equal ones.

    Options at their default are left out unless declared as shown.
    """
    written = [
        (option.name, values[option.name])
        for option in factory.options
        if option.shown or values[option.name] != option.default
    ]
    options = ",".join(f"{name}={value}" for name, value in written)
    spec = f"{factory.name}:{options}" if written else factory.name
    parts = [factory.name, *(f"{name}{value}" for name, value in written)]
    return spec, re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))

"""Command line of a kit, which measures the kit's models on a device of this machine."""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import cast

from hwsearch.devices.anchor import anchors_digest
from hwsearch.devices.base import Device, MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.spec import (
    DeviceFactory,
    file_precision,
    parse_options as checked_options,
    split_spec,
)
from hwsearch.errors import HwsearchError, InputError, unknown
from hwsearch.kit.manifest import (
    CONFIRM,
    EXAMPLES,
    TABLE,
    Manifest,
    read_manifest,
    unpacked,
)
from hwsearch.kit.results import Results, measure_missing
from hwsearch.quantization import INT8, MIXED, PROCESSORS, quantization_for

# Candidates are compared with each other, so that many are measured together.
GROUP_SIZES = {TABLE: 5, CONFIRM: 16}
OUTPUTS = {TABLE: "table.json", CONFIRM: "timings.json"}
INTERRUPTED = 130
_ASKED = {MIXED: "fp32,int8:per-block"}  # what a kit of such models is asked for by


def main(arguments: Sequence[str], kit: Path | None = None) -> int:
    """Measure the models that have no result; return the exit code."""
    file = kit or Path(sys.argv[0])
    try:
        manifest = read_manifest(file)
        given = _parse(arguments, manifest)
        _measure(file, manifest, given.device, given.out)
    except (HwsearchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, HwsearchError) else 1
    except KeyboardInterrupt as stop:
        print(f"\nstopped; {stop or 'nothing was measured yet'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def load_device(spec: str, manifest: Manifest) -> Device:
    """Return a device that the kit can measure on, or raise InputError."""
    device = create_device(spec, manifest.devices)
    if (taken := file_precision(device.precision)) != manifest.precision:
        raise InputError(
            f"{device.spec} takes {taken} models, and those of this kit are {manifest.precision}: "
            f"give a device such as {EXAMPLES[manifest.precision]}, or make another kit by "
            f"'hwsearch kit {manifest.supernet} --precision {_ASKED.get(taken, taken)}'"
        )
    if manifest.activations:
        needed = quantization_for(device.fingerprint()).activations
        if manifest.activations != needed:
            raise InputError(
                f"the models of this kit have {manifest.activations} activations, and a search "
                f"for this processor makes {needed} ones: make the kit again by 'hwsearch kit "
                f"{manifest.supernet} --precision {_ASKED.get(manifest.precision, INT8)} "
                f"--processor {PROCESSORS[needed]}'"
            )
    return device


def create_device(spec: str, entries: Mapping[str, str]) -> Device:
    """Return a device where hwsearch is not installed, or raise InputError.

    ``entries`` maps names of devices to their ``module:attribute``.
    """
    name, options = split_spec(spec)
    if name not in entries:
        raise unknown("device", name, entries, "No other can measure here.")
    module, _, attribute = entries[name].partition(":")
    factory = cast(DeviceFactory, getattr(import_module(module), attribute))
    values = checked_options(factory, options)
    if reason := factory.available():
        raise InputError(
            f"device {name!r} cannot be used here: {reason} (hwsearch is not needed here, only "
            "the runtime itself)"
        )
    return factory.create(**values)


def _parse(arguments: Sequence[str], manifest: Manifest) -> argparse.Namespace:
    wanted = manifest.device or EXAMPLES[manifest.precision]
    parser = argparse.ArgumentParser(
        prog=f"python {Path(sys.argv[0]).name}",
        description=f"Measures {len(manifest.models)} subnets of {manifest.supernet}. It can be "
        "stopped at any time: the same command goes on.",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        required=not manifest.device,
        default=manifest.device,
        help=f"such as {wanted}; known: {', '.join(manifest.devices)}",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path(OUTPUTS[manifest.purpose]),
        help=f"what receives the results (default: {OUTPUTS[manifest.purpose]})",
    )
    return parser.parse_args(arguments)


def _measure(kit: Path, manifest: Manifest, spec: str, out: Path) -> None:
    if manifest.anchor != anchors_digest():
        raise InputError(f"{str(kit)!r} is damaged: its anchor model is another; copy it again")
    device = load_device(spec, manifest)
    if manifest.device and device.spec != manifest.device:
        raise InputError(
            f"these candidates are for {manifest.device}, and --device is {device.spec}; "
            f"leave --device out"
        )
    if manifest.fingerprint and digest(device.fingerprint()) != manifest.fingerprint:
        raise InputError(
            "this is not the machine that the table is from, or its runtime has changed since "
            f"(fingerprint {digest(device.fingerprint())}, the table's {manifest.fingerprint}); "
            "run this kit where the table was measured, or measure a new table"
        )
    command = shlex.join(["python", str(kit), "--device", device.spec, "--out", str(out)])
    results = Results(manifest, device, out, command)
    keys = {model.key for model in manifest.models}
    try:
        measure_missing(
            results,
            partial(unpacked, kit),
            MeasureSettings(**manifest.settings),
            ProgressLine(),
            group_size=GROUP_SIZES[manifest.purpose],
            profiled=keys if manifest.purpose == TABLE else (),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{len(keys) - len(results.missing())} of {len(keys)} models are kept in {out}, go on "
            f"by: {command}"
        ) from None
    finally:
        device.close()
    results.save()
    print(f"{len(results.facts.latencies)} latencies are in {out}")
    for key, reason in results.facts.failed.items():
        print(f"{key} has none: {reason}")
    use = {TABLE: "search --device kit:", CONFIRM: "confirm RUN "}[manifest.purpose]
    print(f"take it back and run: hwsearch {use}{out.name}")


_BAR = 24


class ProgressLine:
    """Prints the progress of a kit; see `hwsearch.run.progress.Progress`."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin with ``done`` of ``total`` models measured."""
        del name
        self._total, self._done, self._before = total, done, done
        self._began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Print the number of measured models and the estimated remaining time."""
        self._done += steps
        elapsed = time.monotonic() - self._began
        left_s = (self._total - self._done) * elapsed / (self._done - self._before)
        minutes = max(1, round(left_s / 60))
        text = f"about {minutes} min left" if self._done < self._total else "complete"
        self._show(text, end="\n")

    def state(self, **figures: float | int | str) -> None:
        """Print the figures of the group that is being measured."""
        self._show(", ".join(f"{name} {value}" for name, value in figures.items()), end="")

    def note(self, text: str) -> None:
        """Print nothing: the kit lists failures at the end."""

    def _show(self, text: str, end: str) -> None:
        filled = round(_BAR * self._done / self._total)
        line = f"{self._done} of {self._total}  {text}"
        if sys.stdout.isatty():
            bar = "#" * filled + "." * (_BAR - filled)
            print(f"\r[{bar}] {line:<48}", end=end, flush=True)
        elif end:
            print(line, flush=True)

"""What a kit does where it is run: measure its models on a device, group by group."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from hwsearch.devices.anchor import anchor_digest
from hwsearch.devices.base import Device, DeviceFactory, Latency, Profiling, split_spec
from hwsearch.devices.base import parse_options as checked_options
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.protocol import MeasureSettings
from hwsearch.errors import HwsearchError, InputError, unknown
from hwsearch.kit.archive import read_manifest, unpacked
from hwsearch.kit.manifest import CONFIRM, PRECISION, TABLE, KitModel, Manifest
from hwsearch.kit.measurement import Measured
from hwsearch.kit.progress_line import Line

# Candidates are compared with each other, so that as many as fit are timed together.
TOGETHER = {TABLE: 5, CONFIRM: 16}
OUTPUTS = {TABLE: "table.json", CONFIRM: "timings.json"}
INTERRUPTED = 130


def main(arguments: Sequence[str], kit: Path | None = None) -> int:
    """Measure what a kit holds, or what is left of it.

    Args:
        arguments: Of the command line.
        kit: The kit; by default the file that is being run.

    Returns:
        The exit code.
    """
    file = kit or Path(sys.argv[0])
    try:
        manifest = read_manifest(file)
        given = _parse(arguments, manifest)
        _measure(file, manifest, given.device, given.out)
    except HwsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"\nstopped; {stop or 'nothing was measured yet'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def load_device(spec: str, manifest: Manifest) -> Device:
    """Make a device that the kit can measure on.

    Raises:
        InputError: The kit has no such device, an option is wrong, or it cannot be used here.
    """
    name, options = split_spec(spec)
    if name not in manifest.devices:
        raise unknown("device", name, manifest.devices, "The kit can measure on no other.")
    module, _, attribute = manifest.devices[name].partition(":")
    factory = cast(DeviceFactory, getattr(import_module(module), attribute))
    values = checked_options(factory, options)
    if reason := factory.available():
        raise InputError(
            f"device {name!r} cannot be used here: {reason} (a kit needs no hwsearch, only the "
            "runtime itself)"
        )
    device = factory.create(**values)
    if device.precision != PRECISION:
        raise InputError(
            f"{device.spec} takes {device.precision} models, and those of a kit are {PRECISION}"
        )
    return device


def _parse(arguments: Sequence[str], manifest: Manifest) -> argparse.Namespace:
    wanted = manifest.device or "ort-cpu:threads=4"
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
    if manifest.anchor != anchor_digest():
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
    measured = Measured(manifest, device, command, out)
    size = TOGETHER[manifest.purpose]
    try:
        while missing := measured.missing():
            _measure_group(kit, measured, device, missing[:size])
    except KeyboardInterrupt:
        done = len(manifest.models) - len(measured.missing())
        raise KeyboardInterrupt(
            f"{done} of {len(manifest.models)} models are kept in {out}, go on by: {command}"
        ) from None
    finally:
        device.close()
    measured.save()
    print(f"{len(measured.latencies)} latencies are in {out}")
    for key, reason in measured.failed.items():
        print(f"{key} has none: {reason}")
    print(_next_step(manifest, out))


def _measure_group(
    kit: Path, measured: Measured, device: Device, models: Sequence[KitModel]
) -> None:
    manifest = measured.manifest
    total = len(manifest.models)
    line = Line(total, total - len(measured.missing()), len(models))
    with unpacked(kit, models) as paths:
        seed = manifest.models.index(models[0])
        results = device.measure(
            paths,
            seed=seed,
            settings=MeasureSettings(**manifest.settings),
            progress=line.rounds,
        )
        timed = {key: paths[key] for key, got in results.items() if isinstance(got, Latency)}
        profiles = {}
        if manifest.purpose == TABLE and isinstance(device, Profiling) and timed:
            line.profiling()
            profiles = device.profile(timed)
    measured.add(results, profiles)
    measured.save()
    line.done(len(measured.failed))


def _next_step(manifest: Manifest, out: Path) -> str:
    if manifest.purpose == CONFIRM:
        return f"take it back and run: hwsearch confirm RUN {out.name}"
    return f"take it back and run: hwsearch search --device kit:{out.name}"

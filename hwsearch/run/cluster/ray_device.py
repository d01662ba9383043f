"""The device of a node that declares it, as the machine sees it on which the search runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray

from hwsearch.devices import Device, MeasureSettings
from hwsearch.devices.frames import Header
from hwsearch.errors import DeviceError, InputError
from hwsearch.run.cluster import ray_node
from hwsearch.run.cluster.connection import (
    connect,
    declared_devices,
    declared_spec,
    lost,
    task,
)
from hwsearch.run.cluster.remote_device import Elsewhere, Latencies, runner
from hwsearch.run.cluster.scheduler import TRIES
from hwsearch.run.cluster.worker_context import check_reply


def device_on_node(spec: str) -> Device:
    """Return the device of the nodes that declare it; see `hwsearch.run.cluster.remote_device`.

    Raises:
        InputError: There is no cluster, no node declares the device, it cannot be used there, or
            this machine cannot run its models.
    """
    leave = ray.shutdown if connect() else None
    try:
        about = _about(declared_spec(spec))
        here = runner(about["spec"], about["precision"])
    except BaseException:
        if leave is not None:
            leave()
        raise
    spec, fingerprint = about["spec"], about["fingerprint"]

    def timing(models: Mapping[str, Path], seed: int, settings: MeasureSettings) -> Latencies:
        connect()
        files = {name: np.fromfile(path, np.uint8) for name, path in models.items()}
        try:
            reply, found = _answer(ray_node.measure, spec, fingerprint, files, seed, settings)
        except DeviceError as error:
            return dict.fromkeys(models, error)
        check_reply(reply, _who(spec))
        latencies: Latencies = found
        return latencies

    return Elsewhere(
        here,
        spec=spec,
        slug=about["slug"],
        fingerprint=fingerprint,
        timing=timing,
        leave=leave,
    )


def _about(spec: str) -> Header:
    """Ask a node how its device is written down, and what decides its latencies."""
    there = declared_devices()
    if spec not in there:
        address = ray.get_runtime_context().gcs_address
        raise InputError(
            f"no node of the Ray cluster declares device {spec!r} (declared: "
            f"{', '.join(there) or 'none'}); on the machine that is to measure, run "
            f"'hwsearch worker --device {spec} --address {address}'"
        )
    return check_reply(_answer(ray_node.describe, spec), _who(spec))


def _answer(function: Any, spec: str, *args: Any) -> Any:
    """Have a function run on a node that declares a device, once more if that is lost.

    Raises:
        DeviceError: It is lost again.
    """
    reason = ""
    for _ in range(TRIES):
        remote = task(function, f"{function.__name__} {spec}", spec)
        try:
            return ray.get(remote.remote(spec, *args))
        except ray.exceptions.RayError as error:
            reason = lost(error)
    raise DeviceError(f"{_who(spec)} was lost {TRIES} times: {reason}")


def _who(spec: str) -> str:
    return f"the node of device {spec!r}"

"""The connection to a Ray cluster, the resources of its nodes, and remote functions on them."""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.errors import DeviceError, HwsearchError, InputError
from hwsearch.run.cluster import worker_context
from hwsearch.run.cluster.remote_device import DeviceInfo, Latencies, RemoteDevice

NODE = "hwsearch"  # Ray resource; a node offers one, and every job takes it and one CPU
# For processes that start a node or connect. A lost node is noticed after 5 health checks.
ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # jobs use a node's GPU without reserving it
}
RETRIES = 1  # of a job whose worker process or node is lost
_TIMEOUT_S = 10.0


def device_resource(spec: str) -> str:
    """Return the name of the Ray resource that declares a device."""
    return f"{NODE}:{spec}"


def connect() -> bool:
    """Connect to the cluster at ``$RAY_ADDRESS``, else on this machine, or raise InputError.

    It returns False where this process is connected already.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray

    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None:
            check_reachable(address)  # ray.init would try for minutes
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR, namespace=NODE)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at RAY_ADDRESS={address}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray cluster was found {where} ({reason}). Start one here by 'hwsearch worker', "
            "or set RAY_ADDRESS to HOST:PORT of one"
        ) from error
    return True


def check_reachable(address: str) -> None:
    """Raise InputError where ``HOST:PORT`` is no address or does not answer."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"address {address!r} is not of the form HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_S).close()
    except OSError as error:
        raise InputError(f"there is no answer from {address}: {error}") from error


def n_nodes() -> int:
    """Return the number of nodes that have joined by ``hwsearch worker``."""
    import ray

    return int(ray.cluster_resources().get(NODE, 0))


def declared_devices() -> list[str]:
    """Return the devices that the nodes declare, sorted."""
    import ray

    prefix = device_resource("")
    names = sorted(ray.cluster_resources())
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def remote(function: Callable[..., Any], name: str, device: str | None = None) -> Any:
    """Return a Ray remote function that occupies a node, one with the device if it is given."""
    import ray

    resources = {NODE: 1.0, **({device_resource(device): 1.0} if device else {})}
    return ray.remote(num_cpus=1, resources=resources, max_retries=RETRIES, name=name)(function)


def result_of(ref: Any) -> Any:
    """Return a remote function's result, or raise its HwsearchError with the same class.

    Raise DeviceError where its worker process or node was lost twice.
    """
    import ray
    from ray import exceptions

    try:
        return ray.get(ref)
    except exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HwsearchError):
            raise type(cause)(f"a node: {cause}") from error
        raise HwsearchError(f"a node failed: {type(cause).__name__}: {cause}") from error
    except exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise DeviceError(
            f"its worker was lost {1 + RETRIES} times; the last time: {reason}"
        ) from error


def device_on_node(spec: str) -> Device:
    """Return the device that nodes of the cluster declare; raise InputError if not usable."""
    import ray

    disconnect = ray.shutdown if connect() else None
    try:
        info = _declared(spec)

        def measure(models: Mapping[str, Path], seed: int, settings: MeasureSettings) -> Latencies:
            connect()
            files = {name: np.fromfile(path, np.uint8) for name, path in models.items()}
            measuring = remote(worker_context.measure_models, f"measure {spec}", info.spec)
            try:
                latencies: Latencies = result_of(measuring.remote(info, files, seed, settings))
            except DeviceError as error:
                return dict.fromkeys(models, error)
            return latencies

        return RemoteDevice(info, measure, disconnect)
    except BaseException:
        if disconnect is not None:
            disconnect()
        raise


def _declared(spec: str) -> DeviceInfo:
    import ray

    try:
        device = load_device(spec)
    except InputError:
        spec = spec.strip()  # this machine may lack the device
    else:
        spec = device.spec  # as nodes declare it, with default options
        device.close()
    devices = declared_devices()
    if spec not in devices:
        raise InputError(
            f"no node of the Ray cluster declares device {spec!r} (declared: "
            f"{', '.join(devices) or 'none'}); on the machine that is to measure, run "
            f"'hwsearch worker --device {spec} --address {ray.get_runtime_context().gcs_address}'"
        )
    describe = remote(worker_context.describe_device, f"describe {spec}", spec)
    info: DeviceInfo = result_of(describe.remote(spec))
    return info

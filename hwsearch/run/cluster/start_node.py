"""Start of a cluster node in the foreground of a terminal."""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import NoReturn

from hwsearch.devices import load_device
from hwsearch.errors import InputError

PORT = 6379
NODE = "hwsearch"  # Ray resource; a node offers one, and every job takes it and one CPU
# For processes that start a node or connect. A lost node is noticed after 5 health checks.
ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # jobs use a node's GPU without reserving it
}
_TIMEOUT_S = 10.0


def run_node(
    devices: Sequence[str], address: str | None, announce: Callable[[str], None]
) -> NoReturn:
    """Replace this process by ``ray start --block``, which runs until Ctrl-C.

    The node declares the devices, and joins the cluster at ``HOST:PORT`` or starts one without an
    address. ``announce`` gets the cluster's address. Raise InputError where an argument is not
    usable, or Ray is not installed.
    """
    if find_spec("ray") is None:
        raise InputError("a worker needs Ray: pip install 'hwsearch[ray]'")
    specs = []
    for spec in devices:
        device = load_device(spec)
        specs.append(device.spec)
        device.close()
    if address is not None:
        check_reachable(address)
    from ray.util import get_node_ip_address

    announce(address or f"{get_node_ip_address()}:{PORT}")
    sys.stdout.flush()
    os.dup2(2, 1)  # Ray's messages go to stderr
    os.execve(sys.executable, command(specs, address), {**ENVIRONMENT, **os.environ})


def check_reachable(address: str) -> None:
    """Raise InputError where ``HOST:PORT`` is no address or does not answer."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"address {address!r} is not of the form HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_S).close()
    except OSError as error:
        raise InputError(f"there is no answer from {address}: {error}") from error


def device_resource(spec: str) -> str:
    """Return the name of the Ray resource that declares a device."""
    return f"{NODE}:{spec}"


def command(devices: Sequence[str], address: str | None) -> list[str]:
    """Return the command that starts a node for one job at a time; without address, a cluster."""
    resources = {NODE: 1.0, **{device_resource(spec): 1.0 for spec in devices}}
    head = ("--head", f"--port={PORT}", "--include-dashboard=false", "--disable-usage-stats")
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"),
        f"--resources={json.dumps(resources)}",
        *(head if address is None else (f"--address={address}",)),
    ]

"""Start of a cluster node in the foreground of a terminal."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NoReturn

from hwsearch.devices import load_device
from hwsearch.errors import InputError
from hwsearch.run.cluster.connection import (
    ENVIRONMENT,
    NODE,
    check_reachable,
    device_resource,
)

PORT = 6379


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
    from ray.util import get_node_ip_address

    specs = []
    for spec in devices:
        device = load_device(spec)
        specs.append(device.spec)
        device.close()
    if address is not None:
        check_reachable(address)
    announce(address or f"{get_node_ip_address()}:{PORT}")
    sys.stdout.flush()
    os.dup2(2, 1)  # Ray's messages go to stderr
    os.execve(sys.executable, command(specs, address), {**ENVIRONMENT, **os.environ})


def command(devices: Sequence[str], address: str | None) -> list[str]:
    """Return the command that starts a node for one job at a time; without address, a cluster."""
    resources = {NODE: 1.0, **{device_resource(spec): 1.0 for spec in devices}}
    head = ("--head", f"--port={PORT}", "--include-dashboard=false", "--disable-usage-stats")
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"),
        f"--resources={json.dumps(resources)}",
        *(head if address is None else (f"--address={address}",)),
    ]

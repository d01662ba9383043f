"""A Ray cluster: what its nodes declare, how tasks take them, and why one was lost."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from hwsearch.devices import load_device
from hwsearch.errors import HwsearchError, InputError

# What `hwsearch worker` declares: work takes all of it, so that a node does one thing at a time.
NODE = "hwsearch"
SEAT: Mapping[str, float] = {"CPU": 1.0, NODE: 1.0}
# For whoever starts a node, and for whoever connects. A node that is gone is noticed after five
# checks without an answer: a refused connection is one, a slow answer is not.
ENVIRONMENT: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a node's GPU is its device's, not a resource
}
_REACH_S = 10.0
_log = logging.getLogger(__name__)


def device_resource(spec: str) -> str:
    """Return the name of the custom resource that declares a device."""
    return f"{NODE}:{spec}"


def declared_spec(spec: str) -> str:
    """Return how a device is written down by those that declare it; see `canonical_spec`."""
    try:
        device = load_device(spec)
    except InputError:
        return spec.strip()  # this machine need not be able to be it
    device.close()
    return device.spec


def connect() -> bool:
    """Connect to the cluster of ``$RAY_ADDRESS``, else of this machine; whether it was not yet.

    Raises:
        InputError: There is none.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    import ray
    from ray._private import worker

    if ray.is_initialized():
        return False
    # It prints what happens to nodes whatever it is told about logging; what counts of that is
    # among the search's own notes.
    worker.print_to_stdstream = lambda data, **_: _log.info("\n".join(map(str, data["lines"])))
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None:
            _reach(address)
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR, namespace=NODE)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at RAY_ADDRESS={address}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray cluster was found {where} ({reason}). Start one here by 'hwsearch worker', "
            "or set RAY_ADDRESS to HOST:PORT of one"
        ) from error
    return True


def _reach(address: str) -> None:
    """Try whether anybody is there: Ray itself goes on trying for minutes.

    Raises:
        OSError: Nobody is.
        ValueError: It is no address.
    """
    socket.create_connection(split_address(address), timeout=_REACH_S).close()


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.

    Raises:
        ValueError: It is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("that is not of the form HOST:PORT")
    return host, int(port)


def seats() -> int:
    """How many nodes have joined to work for hwsearch."""
    import ray

    return int(ray.cluster_resources().get(NODE, 0))


def declared_devices() -> list[str]:
    """The devices that nodes declare, sorted.

    Raises:
        InputError: Other work can be put beside measurements on a node that declares one.
    """
    import ray

    found = set()
    for node in ray.nodes():
        given = node["Resources"] if node["Alive"] else {}
        specs = [name.removeprefix(f"{NODE}:") for name in given if name.startswith(f"{NODE}:")]
        found.update(specs)
        if specs and any(given.get(name) != amount for name, amount in SEAT.items()):
            raise InputError(
                f"node {node['NodeManagerAddress']} declares device {specs[0]!r} and offers "
                f"{given.get('CPU', 0):g} CPUs and {given.get(NODE, 0):g} x {NODE!r} to other "
                "work, which would disturb measurements; start it by 'hwsearch worker', which "
                "declares one of each"
            )
    return sorted(found)


def task(function: Any, name: str, spec: str | None = None) -> Any:
    """Return a remote function that takes a whole node, one that declares a device if it is named.

    It is not repeated by Ray: whether lost work is done again is for us to say.
    """
    import ray

    resources = {NODE: SEAT[NODE], **({device_resource(spec): 1.0} if spec else {})}
    options = {"num_cpus": SEAT["CPU"], "resources": resources, "max_retries": 0, "name": name}
    return ray.remote(**options)(function)


def lost(error: Exception) -> str:
    """Say why a task has no answer.

    Raises:
        HwsearchError: It has one, an error that nobody foresaw.
    """
    from ray import exceptions

    if isinstance(error, exceptions.RayTaskError):
        cause = getattr(error, "cause", error)
        raise HwsearchError(f"a node failed: {type(cause).__name__}: {cause}") from error
    known: Sequence[tuple[type[Exception], str]] = (
        (exceptions.NodeDiedError, "its node is gone"),
        (exceptions.OutOfMemoryError, "memory ran out on its node"),
        (exceptions.WorkerCrashedError, "its worker process died"),
        (exceptions.ObjectLostError, "its node went away with the answer"),
    )
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return next((reason for kind, reason in known if isinstance(error, kind)), text)

"""A node of a Ray cluster that works for hwsearch: started here, in the foreground."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

from hwsearch.devices import load_device
from hwsearch.errors import HwsearchError, InputError
from hwsearch.run.cluster.connection import ENVIRONMENT, SEAT, device_resource, split_address

PORT = 6379
_STARTED = "Ray runtime started"
_END_S = 15.0


def check_address(address: str) -> str:
    """Return ``HOST:PORT``.

    Raises:
        InputError: It is not of that form.
    """
    try:
        split_address(address)
    except ValueError:
        raise InputError(
            f"address {address!r} is not of the form HOST:PORT; 'hwsearch worker' without "
            "--address prints the one of the cluster that it starts"
        ) from None
    return address


def declared(devices: Sequence[str]) -> tuple[str, ...]:
    """Return devices of this machine as they are written down.

    Raises:
        InputError: One is unknown, or cannot be used here.
    """
    found = []
    for spec in devices:
        device = load_device(spec)
        found.append(device.spec)
        device.close()
    return tuple(dict.fromkeys(found))


def command(devices: Sequence[str], address: str | None) -> list[str]:
    """Return the command that starts a node.

    Args:
        devices: As `declared` returned them.
        address: Of the cluster that it joins; None to be the head of a new one.
    """
    custom = {name: amount for name, amount in SEAT.items() if name != "CPU"}
    custom |= {device_resource(spec): 1.0 for spec in devices}
    joined = [f"--address={address}"]
    if address is None:
        joined = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        *joined,
        "--disable-usage-stats",
        f"--num-cpus={SEAT['CPU']:.0f}",
        f"--resources={json.dumps(custom)}",
    ]


def run_node(
    devices: Sequence[str], address: str | None, ready: Callable[[str], None]
) -> NoReturn:
    """Be a node until it is interrupted or the cluster ends.

    Args:
        devices: Those of this machine on which it measures.
        address: Of the cluster that it joins; None to start one.
        ready: Told the cluster's address, once the node is part of it.

    Raises:
        InputError: Ray is not installed, the address is none, or a device cannot be used here.
        HwsearchError: The node did not start, or the cluster is gone.
        KeyboardInterrupt: It was interrupted.
    """
    if find_spec("ray") is None:
        raise InputError("a worker needs Ray: pip install 'hwsearch[ray]'")
    if address is not None:
        check_address(address)
    specs = declared(devices)
    environment = {**ENVIRONMENT, **os.environ}
    node = subprocess.Popen(
        command(specs, address),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # interrupted by us, who know what to end
    )
    handlers = {sig: signal.signal(sig, _interrupt) for sig in (signal.SIGTERM, signal.SIGHUP)}
    try:
        _follow(node, lambda said: ready(address or _address(said)))
    finally:
        node.terminate()
        try:
            node.wait(_END_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
        assert node.stdout is not None
        node.stdout.close()
        for sig, handler in handlers.items():
            signal.signal(sig, handler)


def _follow(node: "subprocess.Popen[str]", started: Callable[[str], None]) -> NoReturn:
    """Read what a node prints until it ends.

    Raises:
        HwsearchError: It has ended; the text says what it printed last.
    """
    assert node.stdout is not None
    last: deque[str] = deque(maxlen=30)
    is_part = False
    for line in node.stdout:
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
        if text:
            last.append(text)
        if _STARTED in text:
            is_part = True
            started("\n".join(last))
    code = node.wait()
    what = "the cluster is gone, or this node was ended" if is_part else "the node did not start"
    said = next((each for each in reversed(last) if "rror" in each), last[-1] if last else "")
    raise HwsearchError(f"{what} (exit code {code}): {said[:400]}")


def _address(said: str) -> str:
    """Find the address under which others join in what the head said."""
    found = re.search(r"--address='?([^'\s]+:\d+)", said) or re.search(
        r"Local node IP: (\S+)", said
    )
    host = found[1] if found else socket.gethostname()
    return host if ":" in host else f"{host}:{PORT}"


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt

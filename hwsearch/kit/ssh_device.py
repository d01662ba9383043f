"""``ssh:HOST/DEVICE``: a device of a machine that one can log into.

Latencies are measured there, and outputs computed here. There, only Python, numpy and the runtime
are needed: `hwsearch.kit.ssh_connection` sends the code.
"""

import hashlib
import logging
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hwsearch.devices import MeasureSettings, load_factory
from hwsearch.devices.base import Device, Fingerprint, Latency, Profile, Profiling, Progress
from hwsearch.devices.fingerprint import differences
from hwsearch.devices.model_check import refusal
from hwsearch.devices.spec import (
    DeviceFactory,
    canonical_spec,
    parse_options,
    split_name,
    split_spec,
)
from hwsearch.errors import DeviceError, DeviceLostError, InputError, unknown
from hwsearch.kit.device import DeviceInfo, Latencies, RemoteDevice, output_device
from hwsearch.kit.measuring_code import device_entries
from hwsearch.kit.results import read_latency
from hwsearch.kit.ssh_connection import ConnectionLostError, SshConnection, python_there
from hwsearch.quantization import FP32

logger = logging.getLogger(__name__)
_HOST = re.compile(r"[^\s/-][^\s/]*")
_PAUSES_S = (1.0, 5.0, 15.0, 30.0, 60.0)  # before each attempt to connect again
_TRIES = 2  # of a job whose connection is lost
_MOST_FIELDS = 100  # of a fingerprint
_MOST_LETTERS = 2000  # of an error or a field

Reply = Mapping[str, Any]


class SshDevice(RemoteDevice):
    """A device of another machine; see `hwsearch.devices.base.Device`.

    It connects when it is first needed, and stays connected. A lost connection is made again, and
    its job repeated; the models are sent again then, otherwise once.

    Args:
        text: ``HOST/DEVICE``: a host as ``ssh`` takes it, and a device there.

    Raises:
        InputError: The host or the device is none, or the device's code cannot be sent.
    """

    def __init__(self, text: str) -> None:
        self._host, _, asked = text.partition("/")
        if not (_HOST.fullmatch(self._host) and self._host.isprintable() and asked):
            raise InputError(
                f"device '{DEVICE.name}:{text}' is not of the form {DEVICE.name}:{DEVICE.takes}; "
                f"write for example {DEVICE.name}:pi@board/ort-cpu:threads=1 (a port belongs into "
                "~/.ssh/config)"
            )
        self._entries = device_entries()
        self._there, slug, precision = _canonical(asked, self._entries)
        self._fingerprint: Fingerprint = {}
        self._connection: SshConnection | None = None
        self._batches: dict[int, SshDevice] = {}
        local: Device | InputError
        try:
            local = output_device(DeviceInfo(self._there, slug, precision, {}))
        except InputError as error:
            local = error  # latencies can be measured all the same
        if isinstance(local, Profiling):
            self.profile = self._profile
        info = DeviceInfo(
            spec=f"{DEVICE.name}:{self._host}/{self._there}",
            slug=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{DEVICE.name}-{self._host}-{slug}"),
            precision=precision,
            fingerprint={},
        )
        super().__init__(info, self._measured, local=local, disconnect=self._disconnect)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the device there."""
        if not self._fingerprint:
            self._connected()
        return dict(self._fingerprint)

    def with_batch(self, batch: int) -> "SshDevice":
        """Return the device there with another batch size; it is closed with this one."""
        if batch not in self._batches:
            name, given = split_spec(self._there)
            options = (f"{key}={value}" for key, value in {**given, "batch": batch}.items())
            self._batches[batch] = SshDevice(f"{self._host}/{name}:{','.join(options)}")
        return self._batches[batch]

    def check_outputs(self) -> None:
        """Raise InputError where this machine lacks the runtime, or has another version of it."""
        here = str(self.outputs().fingerprint()["runtime"])
        there = str(self.fingerprint()["runtime"])
        if here.split()[-1] != there.split()[-1]:
            raise InputError(
                f"{self._host!r} has {there}, and this machine, which computes the outputs of the "
                f"same models, has {here}; install one version on both, here by "
                f"'{sys.executable} -m pip install {_package(there)}' or there by "
                f"'{python_there()} -m pip install {_package(here)}'"
            )

    def _measured(
        self,
        info: DeviceInfo,
        models: Mapping[str, Path],
        seed: int,
        settings: MeasureSettings,
        progress: Progress | None,
    ) -> Latencies:
        def read(name: str, reply: Reply) -> Latency:
            return read_latency(reply["latency"], f"{info.spec}, model {name}")

        request = {"do": "measure", "seed": seed, "settings": asdict(settings)}
        return self._results(request, models, read, progress)

    def _profile(
        self, models: Mapping[str, Path], *, runs: int = 20
    ) -> dict[str, Profile | DeviceError]:
        """Time the nodes of models; see `hwsearch.devices.base.Profiling.profile`."""
        return self._results({"do": "profile", "runs": runs}, models, _read_profile)

    def _results(
        self,
        request: Mapping[str, Any],
        models: Mapping[str, Path],
        read: Callable[[str, Reply], Any],
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Return the results of models, or their errors; ``read`` checks what came for a model."""
        done: dict[str, Any] = {}
        for name, path in models.items():
            if error := refusal(path, self.spec, self.precision):
                done[name] = error
            elif not path.is_file():
                done[name] = DeviceError(f"there is no file {path}")
        ready = {name: path for name, path in models.items() if name not in done}
        for attempt in range(_TRIES if ready else 0):
            connection = self._connected()
            try:
                with connection.exchange():
                    done |= self._job(connection, request, ready, read, progress)
                break
            except ConnectionLostError as lost:
                logger.warning("%s: %s", self.spec, lost)
                if attempt == _TRIES - 1:
                    reason = f"the connection was lost {_TRIES} times meanwhile: {lost}"
                    done |= {name: DeviceError(reason) for name in ready}
        return {name: done[name] for name in models}

    def _job(
        self,
        connection: SshConnection,
        request: Mapping[str, Any],
        paths: Mapping[str, Path],
        read: Callable[[str, Reply], Any],
        progress: Progress | None,
    ) -> dict[str, Any]:
        digests = {n: hashlib.sha256(_content(path)).hexdigest() for n, path in paths.items()}
        files = {digest: paths[name] for name, digest in digests.items()}
        connection.send({**request, "models": digests})
        found: dict[str, Any] = {}
        while len(found) < len(paths):
            reply = connection.receive()
            if "refused" in reply:
                raise DeviceLostError(f"on {self._host!r}: {_text(reply['refused'])}")
            if "missing" in reply:
                for digest in reply["missing"]:
                    connection.send({"model": digest}, _content(files.pop(digest)))
            elif "rounds" in reply:
                if progress is not None:
                    progress(int(reply["rounds"]), float(reply["half_width"]))
            elif (name := reply["result"]) not in paths or name in found:
                raise ValueError(f"a result of {name!r:.80}")
            elif "error" in reply:
                found[name] = DeviceError(_text(reply["error"]))
            else:
                found[name] = read(name, reply)
        return found

    def _connected(self) -> SshConnection:
        """Return the connection, which is made if there is none.

        Raises:
            InputError: The first one cannot be made.
            DeviceLostError: A later one cannot be made, after several attempts in two minutes, or
                the device there is another now.
        """
        if self._connection is not None and not self._connection.lost:
            return self._connection
        pauses_s = [*_PAUSES_S] if self._fingerprint else []
        while True:
            try:
                self._connection = self._opened()
            except ConnectionLostError as error:
                if not self._fingerprint:
                    raise InputError(f"device {self.spec!r} cannot be used: {error}") from error
                if not pauses_s:
                    raise DeviceLostError(f"device {self.spec} is gone: {error}") from error
                logger.warning("%s; trying again in %g s", error, pauses_s[0])
                time.sleep(pauses_s.pop(0))
            else:
                return self._connection

    def _opened(self) -> SshConnection:
        """Connect, and compare the device with what it was before."""
        connection = SshConnection(self._host)
        found: Fingerprint = {}
        with connection.exchange():
            connection.send({"do": "open", "device": self._there, "entries": self._entries})
            reply = connection.receive()
            if "refused" not in reply:
                stated = reply["spec"], reply["precision"]
                if stated != (self._there, self.precision):
                    raise ValueError(f"it is {stated!r:.200}")
                found = _fingerprint(reply["fingerprint"])
        if not found:
            connection.close()
            raise InputError(f"on {self._host!r}: {_text(reply['refused'])}{self._install(reply)}")
        changed = differences(self._fingerprint, found)
        if self._fingerprint and changed:
            connection.close()
            raise DeviceLostError(f"device {self.spec} is another one now: {changed}")
        self._fingerprint = found
        return connection

    def _install(self, reply: Reply) -> str:
        """Return what installs there the version of a runtime that this machine has."""
        lacking = "cannot be used here" in str(reply["refused"])
        if not lacking or isinstance(self._local, InputError):
            return ""
        package = _package(str(self._local.fingerprint()["runtime"]))
        return f"; this machine's version of it: {python_there()} -m pip install {package}"

    def _disconnect(self) -> None:
        for each in self._batches.values():
            each.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _canonical(asked: str, entries: Mapping[str, str]) -> tuple[str, str, str]:
    """Return spec, slug and precision of another machine's device, whose limits are its own."""
    name, _ = split_name(asked)
    if name not in entries:
        raise unknown("device of another machine", name, entries)
    factory = load_factory(name)
    unlimited = tuple(replace(option, high=None) for option in factory.options)
    values = parse_options(replace(factory, options=unlimited), split_spec(asked)[1])
    return *canonical_spec(factory, values), str(values.get("precision", FP32))


def _content(path: Path) -> bytes:
    """Return a model file as one, with the weights that it stores in others."""
    import onnx

    from hwsearch.models.onnx_file import external_tensors, read_model

    try:
        split = next(external_tensors(read_model(path)), None) is not None
    except Exception:  # noqa: BLE001 - the runtime there says why it cannot be read
        split = False
    return bytes(onnx.load(path).SerializeToString()) if split else path.read_bytes()


def _text(value: object) -> str:
    return str(value)[:_MOST_LETTERS]


def _package(runtime: str) -> str:
    """Return how pip names a runtime, given as in fingerprints."""
    name, _, version = runtime.rpartition(" ")
    return f"{name}=={version.partition('-')[0]}"


def _fingerprint(fields: Any) -> Fingerprint:
    """Return an untrusted fingerprint; raise ValueError for one that is none."""
    if not (isinstance(fields, dict) and 0 < len(fields) <= _MOST_FIELDS and "runtime" in fields):
        raise ValueError(f"a fingerprint {fields!r:.80}")
    for name, value in fields.items():
        if type(value) not in (str, int) or max(len(name), len(str(value))) > _MOST_LETTERS:
            raise ValueError(f"a fingerprint with {name!r:.80} of {value!r:.80}")
    return fields


def _read_profile(name: str, reply: Reply) -> Profile:
    nodes_ms, total_ms = reply["profile"]["nodes_ms"], reply["profile"]["total_ms"]
    times = (total_ms, *nodes_ms.values())
    if not all(type(each) is float and 0 <= each < math.inf for each in times):
        raise ValueError(f"times of the nodes of {name} that are none")
    return Profile(nodes_ms=nodes_ms, total_ms=total_ms)


def _missing() -> str | None:
    return None if shutil.which("ssh") else "ssh is not installed: apt-get install openssh-client"


DEVICE = DeviceFactory(name="ssh", create=SshDevice, available=_missing, takes="HOST/DEVICE")

"""Server on another machine: measures for the machine that started it through ssh.

Frames come on stdin and answers go to stdout. It ends with its input, and its folder with it.
"""

import hashlib
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from hwsearch.devices.base import Device, Latency, MeasureSettings, Profiling
from hwsearch.errors import DeviceError, HwsearchError
from hwsearch.kit.frames import read_frame, write_frame
from hwsearch.kit.main import create_device
from hwsearch.kit.manifest import MAX_MODEL_BYTES
from hwsearch.kit.results import latency_record

FOLDER = "hwsearch-ssh-"  # before the process ID in the name of a server's folder
_KEPT_BYTES = 2**30  # of models of earlier jobs
_PROGRESS_S = 1.0  # rounds are reported this rarely, as sending takes CPU time from the models

Frame = tuple[dict[str, Any], bytes]


class Server:
    """Answers requests; ``requests`` are frames, and ``send`` sends an object."""

    def __init__(self, folder: Path, requests: "queue.Queue[Frame]", replies: BinaryIO) -> None:
        self._folder, self._requests, self._replies = folder, requests, replies
        self._device: Device | None = None
        self._files: dict[str, Path] = {}  # SHA-256 -> file, the last used ones at the end

    def answer(self) -> None:
        """Answer the next request; an error that concerns all of it is the answer too."""
        request, _ = self._requests.get()
        answers = {"open": self._open, "measure": self._measure, "profile": self._profile}
        if "do" not in request:
            return  # a model of a job that was refused
        try:
            answers[request["do"]](request)
        except HwsearchError as error:
            self._send(refused=str(error))
        except Exception as error:  # noqa: BLE001 - every error is sent to the client
            self._send(refused=f"{type(error).__name__}: {error}")

    def _send(self, **header: Any) -> None:
        write_frame(self._replies, header)

    def _open(self, request: Mapping[str, Any]) -> None:
        """Create the device, and describe it."""
        self._device = device = create_device(request["device"], request["entries"])
        fingerprint = device.fingerprint()
        self._send(spec=device.spec, precision=device.precision, fingerprint=fingerprint)

    def _measure(self, request: Mapping[str, Any]) -> None:
        assert self._device is not None
        paths, last = self._received(request["models"]), -_PROGRESS_S

        def progress(n_rounds: int, half_width: float) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= _PROGRESS_S:
                last = now
                self._send(rounds=n_rounds, half_width=half_width)

        settings = MeasureSettings(**request["settings"])
        found = self._device.measure(
            paths, seed=request["seed"], settings=settings, progress=progress
        )
        for name, result in found.items():
            if isinstance(result, Latency):
                self._send(result=name, latency=latency_record(result))
            else:
                self._send(result=name, error=str(result))

    def _profile(self, request: Mapping[str, Any]) -> None:
        assert isinstance(self._device, Profiling)
        paths = self._received(request["models"])
        for name, result in self._device.profile(paths, runs=request["runs"]).items():
            if isinstance(result, DeviceError):
                self._send(result=name, error=str(result))
            else:
                self._send(result=name, profile=asdict(result))

    def _received(self, models: Mapping[str, str]) -> dict[str, Path]:
        """Return name -> file of models, given as name -> SHA-256; ask for missing ones."""
        wanted = list(dict.fromkeys(models.values()))
        others = [digest for digest in self._files if digest not in wanted]
        kept = sum(self._files[digest].stat().st_size for digest in others)
        for digest in others:
            if kept > _KEPT_BYTES:
                path = self._files.pop(digest)
                kept -= path.stat().st_size
                path.unlink()
        missing = [digest for digest in wanted if digest not in self._files]
        self._send(missing=missing)
        contents = self._contents(missing)
        for digest in wanted:
            path = self._files.pop(digest, self._folder / f"{digest}.onnx")
            if digest in missing:
                path.write_bytes(next(contents))
            self._files[digest] = path
        return {name: self._files[digest] for name, digest in models.items()}

    def _contents(self, missing: list[str]) -> Iterator[bytes]:
        for digest in missing:
            _, content = self._requests.get()
            if hashlib.sha256(content).hexdigest() != digest:
                raise DeviceError("a model file was changed while it was sent")
            yield content


def remove_leftovers(folder: Path) -> None:
    """Remove the folders of servers that were killed, most often because memory ran out."""
    for each in folder.glob(f"{FOLDER}*"):
        pid = each.name.removeprefix(FOLDER).partition("-")[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(each, ignore_errors=True)
        except (ValueError, OverflowError, OSError):
            continue


def main(archive: Path) -> NoReturn:
    """Serve until the input ends, then remove the folder of the archive with the code."""

    def end(*_: object) -> NoReturn:
        shutil.rmtree(archive.parent, ignore_errors=True)
        os._exit(0)

    def read() -> None:
        # In a thread, so that the end of the input ends a measurement too.
        try:
            while True:
                requests.put(read_frame(sys.stdin.buffer, MAX_MODEL_BYTES))
        finally:
            end()

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # all other output goes to stderr
    requests: queue.Queue[Frame] = queue.Queue(maxsize=1)
    threading.Thread(target=read, daemon=True).start()
    remove_leftovers(archive.parent.parent)
    server = Server(archive.parent, requests, replies)
    while True:
        server.answer()

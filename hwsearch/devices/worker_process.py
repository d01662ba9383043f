"""Parent's side of a worker process: starts it, sends requests, and reports why it ended."""

import logging
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from hwsearch.devices.messages import Arrays, Header, MessageError, read_message, write_message
from hwsearch.errors import DeviceError
from hwsearch.machine import memory_limit_bytes

logger = logging.getLogger(__name__)
_START_S = 60.0
# The entry of the working directory, an empty text, is removed from the path, so that no file in
# it shadows a library. The child imports the same hwsearch as its parent.
_BOOT = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    "import hwsearch; del sys.path[0]; "
    "from hwsearch.devices.worker import main; main()"
)
_CAUSES = {
    "SIGKILL": "killed from outside, most often because memory ran out",
    "SIGILL": "illegal instruction: this build of the runtime needs another processor",
    "SIGSEGV": "the runtime accessed memory that it does not own",
    "SIGABRT": "the runtime gave up",
    "SIGBUS": "a file or memory that the runtime had mapped went away",
}


@dataclass(eq=False, slots=True)
class Request:
    """A request that was sent; ``reply`` is None before it is received."""

    reply: tuple[Header, Arrays] | None = None


class Worker(AbstractContextManager["Worker"]):
    """A child process in which a runtime loads and runs models; a context manager.

    Args:
        cpus: CPUs that it is pinned to, None for all.
        runtime: ``module:attribute`` of a `hwsearch.devices.runtime.Runtime`.
        account: Whether the calling thread computes, so that its waiting can be subtracted.

    Attributes:
        lost: Why the process has ended, None while it lives; every request then raises.
        affinity: CPUs that it is pinned to, such as "0,1", or "none".
        waiting: Whether waiting for a CPU is "taken out" of times or "included" in them.

    Raises:
        DeviceError: The process does not start or cannot import its runtime.
    """

    def __init__(self, cpus: Sequence[int] | None, runtime: str, *, account: bool = True) -> None:
        self.lost: str | None = None
        self._expired: float | None = None
        self._connected = False  # text may be printed before the first reply
        self._unanswered: deque[Request] = deque()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        package = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        self.pid = self._process.pid
        first = {"cpus": list(cpus) if cpus else None, "runtime": runtime, "account": account}
        try:
            about, _ = self.request(first, timeout_s=_START_S)
        except BaseException:
            self.close()
            raise
        self.version: str = about["version"]
        self.affinity: str = about["affinity"]
        self.waiting: str = about["waiting"]
        logger.debug("started worker %d: %s, %s", self.pid, runtime, about)

    def request(
        self,
        header: Header,
        arrays: Sequence[NDArray[Any]] = (),
        *,
        timeout_s: float,
    ) -> tuple[Header, Arrays]:
        """Send a request and wait for its reply.

        Raises:
            DeviceError: The worker refused, or it crashed or exceeded the limit, after which
                ``lost`` is set.
        """
        return self.receive(self.send(header, arrays, timeout_s=timeout_s), timeout_s=timeout_s)

    def send(
        self, header: Header, arrays: Sequence[NDArray[Any]] = (), *, timeout_s: float
    ) -> Request:
        """Send a request, which the worker executes after those sent before."""
        with self._watched(timeout_s):
            write_message(cast(BinaryIO, self._process.stdin), header, arrays)
        request = Request()
        self._unanswered.append(request)
        return request

    def receive(self, request: Request, *, timeout_s: float) -> tuple[Header, Arrays]:
        """Wait for the reply to a request; replies to earlier ones are stored."""
        while request.reply is None:
            with self._watched(timeout_s):
                first = not self._connected
                reply = read_message(cast(BinaryIO, self._process.stdout), skip=first)
            self._connected = True
            self._unanswered.popleft().reply = reply
        header, arrays = request.reply
        if "error" in header:
            raise DeviceError(header["error"])
        return header, arrays

    def close(self) -> None:
        """End the process and close its pipes; may be called again."""
        self.lost = self.lost or "the worker process was closed"
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._printed.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _watched(self, timeout_s: float) -> Iterator[None]:
        """Exchange messages; on failure or timeout kill the process and mark it lost."""
        if self.lost:
            raise DeviceError(self.lost)
        watchdog = threading.Timer(timeout_s, self._expire, [timeout_s])
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except (OSError, MessageError, ValueError) as error:
            self._process.kill()
            self.lost = self._reason(error)
            logger.debug("lost worker %d: %s", self.pid, self.lost)
            raise DeviceError(self.lost) from None
        except BaseException:
            # An interrupted exchange leaves an incomplete message in the pipe.
            self._process.kill()
            self.lost = "the exchange with the worker process was interrupted"
            raise
        finally:
            watchdog.cancel()

    def _expire(self, timeout_s: float) -> None:
        self._expired = timeout_s
        self._process.kill()

    def _reason(self, error: Exception) -> str:
        code = self._process.wait()
        if self._expired is not None:
            return f"hung: no answer within {self._expired:.3g} s"
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"crashed with {name}"
            if name in _CAUSES:
                limit = memory_limit_bytes() if name == "SIGKILL" else None
                allowed = (
                    f": the container may use {limit / 1e9:.3g} GB" if limit is not None else ""
                )
                reason += f" ({_CAUSES[name]}{allowed})"
        else:
            reason = f"the worker process ended with exit code {code} ({error})"
        last = self._last_line()
        return f"{reason}: {last}" if last else reason

    def _last_line(self) -> str:
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")

"""Parent's side of a worker process: starts it, sends requests, and reports why it ended."""

import logging
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from hwsearch.devices.worker import START
from hwsearch.errors import DeviceError
from hwsearch.machine import memory_limit_bytes

logger = logging.getLogger(__name__)
_START_S = 60.0
_REPLY_S = 900.0
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


class Worker(AbstractContextManager["Worker"]):
    """A child process in which a runtime loads and runs models; a context manager.

    It is pinned to ``cpus``, None for all. ``runtime`` and ``account`` are those of
    `hwsearch.devices.worker_device.WorkerDevice`.

    Attributes:
        lost: Why the process has ended, None while it lives; every request then raises.
        version: Version of the runtime.
        affinity: CPUs that it is pinned to, such as "0,1", or "none".
        waiting: Whether waiting for a CPU is "taken out" of times or "included" in them.

    Raises:
        DeviceError: The process does not start or cannot import its runtime.
    """

    def __init__(self, cpus: Sequence[int] | None, runtime: str, *, account: bool = True) -> None:
        self.lost: str | None = None
        self._expired: float | None = None
        self._unanswered: deque[Future[Any]] = deque()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        package = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        self.pid = self._process.pid
        self._requests = cast(BinaryIO, self._process.stdin)
        self._replies = cast(BinaryIO, self._process.stdout)
        try:
            with self._exchange(_START_S):
                self._write((runtime, cpus, account))
                for line in self._replies:
                    if line.endswith(START):  # the interpreter may print text before
                        break
                about = pickle.load(self._replies)
        except BaseException:
            self.close()
            raise
        self.version, self.affinity, self.waiting = about
        logger.debug("started worker %d: %s, %s", self.pid, runtime, about)

    def call(self, method: str, *arguments: object, timeout_s: float = _REPLY_S) -> Any:
        """Call a method of `hwsearch.devices.worker.Models` in the process.

        Raises:
            DeviceError: The worker refused, or it crashed or exceeded the limit, after which
                ``lost`` is set.
        """
        reply = self.send(method, *arguments, timeout_s=timeout_s)
        return self.receive(reply, timeout_s=timeout_s)

    def send(self, method: str, *arguments: object, timeout_s: float = _REPLY_S) -> "Future[Any]":
        """Send a request, which the worker executes after those sent before."""
        with self._exchange(timeout_s):
            self._write((method, arguments))
        reply: Future[Any] = Future()
        self._unanswered.append(reply)
        return reply

    def receive(self, reply: "Future[Any]", *, timeout_s: float = _REPLY_S) -> Any:
        """Wait for the reply to a request; replies to earlier ones are stored."""
        while not reply.done():
            with self._exchange(timeout_s):
                found = pickle.load(self._replies)
            if isinstance(found, DeviceError):
                self._unanswered.popleft().set_exception(found)
            else:
                self._unanswered.popleft().set_result(found)
        return reply.result()

    def close(self) -> None:
        """End the process and close its pipes; may be called again."""
        self.lost = self.lost or "the worker process was closed"
        for pipe in (self._requests, self._replies):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._printed.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, message: object) -> None:
        pickle.dump(message, self._requests, pickle.HIGHEST_PROTOCOL)
        self._requests.flush()

    @contextmanager
    def _exchange(self, timeout_s: float) -> Iterator[None]:
        """Exchange messages; on failure or timeout kill the process and mark it lost."""
        if self.lost:
            raise DeviceError(self.lost)
        watchdog = threading.Timer(timeout_s, self._expire, [timeout_s])
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
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
            cause = _CAUSES.get(name, "")
            if name == "SIGKILL" and (limit := memory_limit_bytes()) is not None:
                cause += f": the container may use {limit / 1e9:.3g} GB"
            reason = f"crashed with {name}" + (f" ({cause})" if cause else "")
        else:
            reason = f"the worker process ended with exit code {code} ({error})"
        self._printed.seek(0)
        printed = self._printed.read().decode(errors="replace").strip()
        last = printed.rpartition("\n")[2].strip()[:200]
        return f"{reason}: {last}" if last else reason

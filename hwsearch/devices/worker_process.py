"""The parent's side of a worker: start it, ask it, and say why it was lost."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from numpy.typing import NDArray

from hwsearch.devices.frames import Arrays, FrameError, Header, read_frame, write_frame
from hwsearch.errors import DeviceError

if TYPE_CHECKING:
    from typing import Self  # Python 3.10, on which a kit may run, has none

logger = logging.getLogger(__name__)
_START_S = 60.0
# No file in the working directory may pose as a library: its entry, an empty text, leaves the
# path. The child takes the same hwsearch as its parent, even where another one is installed.
_BOOT = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    "import hwsearch; del sys.path[0]; "
    "from {main} import main; main()"
)
_CAUSES = {
    "SIGKILL": "killed from outside, most often because memory ran out",
    "SIGILL": "illegal instruction: this build of the runtime needs another processor",
    "SIGSEGV": "the runtime accessed memory that it does not own",
    "SIGABRT": "the runtime gave up",
    "SIGBUS": "a file or memory that the runtime had mapped went away",
}


@dataclass(eq=False, slots=True)
class Asked:
    """A request that is on its way.

    Attributes:
        answer: Header and arrays of the reply, once it is there.
    """

    answer: tuple[Header, Arrays] | None = None


class Child:
    """A child process that answers requests one at a time; usable as a context manager.

    Args:
        main: The module of its ``main``, which ends in `hwsearch.devices.worker.serve`.
        first: What the first frame tells it.
        start_s: How long it may take to answer that.

    Attributes:
        lost: Why the process is gone, None while it lives. After that every request raises.
        pid: The process id.
        about: What it answered to the first frame.

    Raises:
        DeviceError: The process does not start, or says why it cannot.
    """

    def __init__(self, main: str, first: Header, *, start_s: float = _START_S) -> None:
        self.lost: str | None = None
        self._expired: float | None = None
        self._unanswered: deque[Asked] = deque()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        package = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT.format(main=main), package],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
        )
        self.pid = self._process.pid
        try:
            self.about, _ = self.request(first, timeout_s=start_s)
        except BaseException:
            self.close()
            raise
        logger.debug("started worker %d: %s, %s", self.pid, main, self.about)

    def request(
        self,
        header: Header,
        arrays: Sequence[NDArray[Any]] = (),
        *,
        timeout_s: float | None,
    ) -> tuple[Header, Arrays]:
        """Ask for one thing and wait for the answer; without a limit for as long as it takes.

        Raises:
            DeviceError: The worker refused (it can be asked further), or it crashed or did not
                answer within ``timeout_s`` seconds (``lost`` says so, and it is gone).
        """
        return self.receive(self.send(header, arrays, timeout_s=timeout_s), timeout_s=timeout_s)

    def send(
        self, header: Header, arrays: Sequence[NDArray[Any]] = (), *, timeout_s: float | None
    ) -> Asked:
        """Ask for one thing, which waits in the worker until it is done with those before it.

        Raises:
            DeviceError: The worker is gone.
        """
        with self._watched(timeout_s):
            write_frame(cast(BinaryIO, self._process.stdin), header, arrays)
        asked = Asked()
        self._unanswered.append(asked)
        return asked

    def receive(self, asked: Asked, *, timeout_s: float | None) -> tuple[Header, Arrays]:
        """Wait for an answer, and take in those to what was asked before.

        Raises:
            DeviceError: As for `request`.
        """
        while asked.answer is None:
            with self._watched(timeout_s):
                answer = read_frame(cast(BinaryIO, self._process.stdout))
            self._unanswered.popleft().answer = answer
        reply, answers = asked.answer
        if "error" in reply:
            raise DeviceError(reply["error"])
        return reply, answers

    def kill(self) -> None:
        """End the process at once; a request that waits for it, in another thread, raises."""
        self._process.kill()

    def close(self) -> None:
        """End the process and free its pipes; harmless when repeated."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _watched(self, timeout_s: float | None) -> Iterator[None]:
        """Exchange frames with the process, which is lost where that fails or takes too long."""
        if self.lost:
            raise DeviceError(self.lost)
        watchdog = threading.Timer(timeout_s or 0.0, self._expire, [timeout_s])
        watchdog.daemon = True
        if timeout_s is not None:
            watchdog.start()
        try:
            yield
        except (OSError, FrameError, ValueError) as error:
            self._process.kill()
            self.lost = self._reason(error)
            logger.debug("lost worker %d: %s", self.pid, self.lost)
            raise DeviceError(self.lost) from None
        except BaseException:
            # An interrupted exchange leaves half a frame behind: nothing can follow it.
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
                reason += f" ({_CAUSES[name]})"
        else:
            reason = f"the worker process ended with exit code {code} ({error})"
        last = self._last_line()
        return f"{reason}: {last}" if last else reason

    def _last_line(self) -> str:
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


class Worker(Child):
    """A child process in which a runtime loads and runs models.

    Args:
        cpus: The CPUs it keeps to, or None for all.
        runtime: What runs models in it: the ``module:attribute`` of a
            `hwsearch.devices.runtime.Runtime`.
        account: Whether the system's account of waiting for a CPU tells something about a run:
            it does where a run is work of the thread that asks for it.

    Attributes:
        affinity: The CPUs it is pinned to, such as "0,1", or "none".
        version: The runtime's version.
        waiting: Whether waiting for a CPU is "taken out" of times or "included" in them.

    Raises:
        DeviceError: The process does not start or cannot import its runtime.
    """

    def __init__(self, cpus: Sequence[int] | None, runtime: str, *, account: bool = True) -> None:
        first = {"cpus": list(cpus) if cpus else None, "runtime": runtime, "account": account}
        super().__init__("hwsearch.devices.worker", first)
        self.version: str = self.about["version"]
        self.affinity: str = self.about["affinity"]
        self.waiting: str = self.about["waiting"]

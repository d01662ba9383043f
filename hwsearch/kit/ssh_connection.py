"""A connection through ssh to the measuring code, which is sent to the other machine first."""

import io
import os
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, BinaryIO, cast

from hwsearch.errors import InputError
from hwsearch.kit.entry_point import SERVE
from hwsearch.kit.frames import read_frame, write_frame
from hwsearch.kit.measuring_code import code_files, store_member
from hwsearch.kit.server import FOLDER

PYTHON = "HWSEARCH_SSH_PYTHON"
TIMEOUT = "HWSEARCH_SSH_TIMEOUT"
_TIMEOUT_S = 20
_START_S = 60.0  # for Python to start there, beyond the time for connecting
_CLOSE_S = 5.0
# A link is dead after four unanswered questions, a minute.
_ALIVE = ("ServerAliveInterval=15", "ServerAliveCountMax=4")
_MOST_PRINTED = 2**16  # bytes that a login shell may print before
_KEPT = 4096  # bytes of stderr, from its end
_NOT_FOUND = (126, 127)  # exit codes of shells
_SSH_FAILED = 255
# Raised while what a stranger sent is read.
_INVALID = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_READY = b"hwsearch is ready\n"
# In double quotes without $, ` and \, which all usual shells pass on unchanged.
_BOOT = (
    "import atexit, os, runpy, shutil, sys, tempfile; "
    f"print('{_READY.decode().strip()}', flush=True); "
    "sys.path[:] = filter(None, sys.path); "  # no file in the home folder shadows a library
    f"folder = tempfile.mkdtemp(prefix='{FOLDER}%d-' % os.getpid()); "
    "atexit.register(shutil.rmtree, folder, True); "
    f"sys.argv = [os.path.join(folder, 'hwsearch.pyz'), '{SERVE}']; "
    "open(sys.argv[0], 'wb').write(sys.stdin.buffer.read({n_bytes})); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


class ConnectionLostError(Exception):
    """The connection cannot be made, or was lost; the text says why."""


class SshConnection:
    """A process of ``ssh`` and the server that it starts on the other machine.

    Attributes:
        lost: Why the connection has ended, None while it lives.
        pid: Process ID of ``ssh``.

    Raises:
        ConnectionLostError: The host cannot be reached, or lacks Python or numpy.
    """

    def __init__(self, host: str) -> None:
        self.lost: str | None = None
        self._host, self._python = host, python_there()
        self._expired = self._connected = False
        self._printed = bytearray()
        timeout_s = connect_timeout_s()
        options = ("BatchMode=yes", f"ConnectTimeout={timeout_s}", *_ALIVE)
        code = code_archive()
        self._process = subprocess.Popen(
            [
                *("ssh", "-T", *(word for each in options for word in ("-o", each)), "--", host),
                f'{self._python} -c "{_BOOT.format(n_bytes=len(code))}"',
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends it from here, in order
        )
        self.pid = self._process.pid
        self._requests = cast(BinaryIO, self._process.stdin)
        self._replies = cast(BinaryIO, self._process.stdout)
        self._reader = threading.Thread(target=self._keep_printed, daemon=True)
        self._reader.start()
        watchdog = threading.Timer(timeout_s + _START_S, self._expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            with self.exchange():
                self._find_start()
                self._connected = True
                self._requests.write(code)
                self._requests.flush()
        finally:
            watchdog.cancel()

    def send(self, header: dict[str, Any], content: bytes = b"") -> None:
        """Send a frame, inside of `exchange`."""
        write_frame(self._requests, header, content)

    def receive(self) -> dict[str, Any]:
        """Wait for a frame, inside of `exchange`; its texts are printable."""
        return cast(dict[str, Any], _printable(read_frame(self._replies)[0]))

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Exchange frames; any error in the block ends the connection.

        Raises:
            ConnectionLostError: It was lost, or what came is no valid answer.
        """
        if self.lost:
            raise ConnectionLostError(self.lost)
        try:
            yield
        except (OSError, EOFError) as error:
            self.lost = self._reason(error)
            raise ConnectionLostError(self.lost) from None
        except _INVALID as error:
            self.lost = f"{self._host!r} answers what hwsearch does not: {error}"
            raise ConnectionLostError(self.lost) from error
        except BaseException:
            self.lost = "the connection was interrupted"
            raise
        finally:
            if self.lost:
                self.close()

    def close(self) -> None:
        """End the process here and thereby the one there; may be called again."""
        if self.lost:
            self._process.terminate()
        else:
            self.lost = "the connection was closed"
            self._requests.close()  # the server ends with its input
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._requests, self._replies):
            with suppress(OSError):
                pipe.close()

    def _find_start(self) -> None:
        left = _MOST_PRINTED
        while not (line := self._replies.readline(left)).endswith(_READY):
            left -= len(line)
            if not line:
                raise EOFError("it ended")
            if left <= 0:
                raise ValueError(f"its login shell prints over {_MOST_PRINTED} bytes")

    def _keep_printed(self) -> None:
        with cast(io.BufferedReader, self._process.stderr) as stream:
            while printed := stream.read1(_KEPT):
                self._printed += printed
                del self._printed[:-_KEPT]

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _reason(self, error: Exception) -> str:
        """Return why the process has ended, or cannot be talked to any more."""
        try:
            code = self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            code = 0
        self._reader.join(1.0)
        lines = self._printed.decode(errors="replace").split("\n")
        last = _printable(next((line for line in reversed(lines) if line.strip()), str(error)))
        host, said = self._host, last.strip()[:300].removeprefix("error: ").rstrip(".")
        if self._expired:
            return f"{host!r} did not answer in time; {TIMEOUT} sets how many seconds it has"
        if code == _SSH_FAILED and self._connected:
            return f"the connection to {host!r} was lost: {said}"
        if code == _SSH_FAILED:
            return (
                f"ssh cannot reach {host!r}: {said}; 'ssh {host}' has to log in without asking "
                "anything"
            )
        if code in _NOT_FOUND:
            return (
                f"{host!r} has no {self._python!r} ({said}): install Python 3.10 or later and "
                f"numpy there, or name its Python by {PYTHON}"
            )
        if code < 0:
            return f"ssh to {host!r} was killed"
        return f"on {host!r}: {said} ({PYTHON} names another Python there)"


def python_there() -> str:
    """Return the command of Python on other machines."""
    return os.environ.get(PYTHON, "python3")


def connect_timeout_s() -> int:
    """Return the time limit of connecting; raise InputError for a value that is none."""
    given = os.environ.get(TIMEOUT, str(_TIMEOUT_S))
    if not given.isdecimal() or not 0 < int(given) < 10**5:
        raise InputError(f"{TIMEOUT} is {given!r}; give a whole number of seconds from 1 up")
    return int(given)


@cache
def code_archive() -> bytes:
    """Return the measuring code as an executable archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, code in code_files():
            store_member(archive, name, code)
    return content.getvalue()


def _printable(value: Any) -> Any:
    """Return untrusted JSON without the control characters that change a terminal."""
    if isinstance(value, str):
        return "".join(each if each.isprintable() else " " for each in value)
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value

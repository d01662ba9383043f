"""Output streams of the command line: results on stdout; progress, notes and errors on stderr.

While stdout is reserved for results, the output of libraries goes to stderr.
"""

import codecs
import ctypes
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any, Final, TextIO

from rich.console import Console, RenderableType

BROKEN_PIPE: Final = 141  # 128 + SIGPIPE, as a shell reports it
_WIDE: Final = 100_000  # columns if the stream is no terminal: nothing is wrapped or cut
_ERRORS: Final = "hwsearch"
# For streams that are not UTF-8; other characters become \xNN or \uNNNN.
_ASCII: Final = {"±": "+-", "─": "-", "│": "|", "└": "+", "┊": ":", "●": "*", "·": ".", "→": "->"}
_reserved: list[TextIO] = []


def result_stream() -> TextIO:
    """Return the stream for results."""
    return _reserved[-1] if _reserved else sys.stdout


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Reserve stdout for `result_stream`; all other output goes to stderr.

    ``sys.stdout`` becomes ``sys.stderr``, and file descriptor 1 a duplicate of descriptor 2, for
    output of C code and child processes.
    """
    if _reserved:
        yield
        return
    given = sys.stdout
    with suppress(OSError, ValueError, AttributeError):
        given.flush()
    kept: int | None = None
    with suppress(OSError):
        kept = os.dup(1)
    own = _reopened(given, kept)
    _reserved.append(own or given)
    with suppress(OSError):
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.clear()
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # C has a buffer of its own
        if own is not None:
            with suppress(BrokenPipeError):
                own.close()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _reopened(given: TextIO | None, kept: int | None) -> TextIO | None:
    """Return a copy of a stream that writes to descriptor 1; None for other streams."""
    try:
        if given is None or kept is None or given.fileno() != 1:
            return None
    except (OSError, ValueError, AttributeError):
        return None
    return io.TextIOWrapper(
        os.fdopen(os.dup(kept), "wb"),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.isatty(),
    )


class Terminal(Console):
    """Console that prints text without markup, and unwrapped unless its stream is a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        isatty = getattr(stream, "isatty", None)
        shown = bool(isatty and isatty())  # regardless of FORCE_COLOR
        super().__init__(
            file=stream,
            force_terminal=shown,
            width=None if shown else _WIDE,
            markup=False,
            highlight=False,
            emoji=False,
        )

    def on_broken_pipe(self) -> None:
        """End as a shell reports it."""
        silence(BrokenPipeError())
        raise SystemExit(BROKEN_PIPE)


def _replaced(error: UnicodeError) -> tuple[bytes, int]:
    """Error handler of codecs: write bytes of file names unchanged, other characters in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for character in error.object[error.start : error.end]:
        if "\udc80" <= character <= "\udcff":
            written += bytes([ord(character) - 0xDC00])
        else:
            written += _ASCII.get(character, character).encode("ascii", "backslashreplace")
    return written, error.end


codecs.register_error(_ERRORS, _replaced)


def prepare_streams() -> None:
    """Make stdout and stderr accept every character; closed ones discard it."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def silence(error: OSError) -> None:
    """Discard further output to a closed pipe; raise any other error."""
    if not isinstance(error, BrokenPipeError):
        raise error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (result_stream(), sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say(*shown: str | RenderableType) -> None:
    """Print lines and tables of a result on stdout."""
    for each in shown:
        if isinstance(each, str):
            print(each, file=result_stream())
        else:
            Terminal(result_stream()).print(each)


def tell(*lines: str) -> None:
    """Print notes or errors on stderr."""
    result_stream().flush()
    for line in lines:
        print(line, file=sys.stderr)


def say_json(result: Any) -> None:
    """Print a result as JSON on stdout; numbers that are not finite become null."""
    print(json.dumps(_finite(result), allow_nan=False), file=result_stream())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return value

"""Standard output reserved for results; output of libraries goes to standard error."""

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

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

"""Calls in a process of their own that may take 2 GB more than it has at first."""

import os
import resource
from pathlib import Path

from hwsearch.errors import HwsearchError

MOST = 2 * 2**30


def outcome(call):
    """Return what a call raised as text, ``"nothing"``, or what it must not raise.

    The process is forked, so that its libraries are loaded already.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, _attempt(call).encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(child, 0)
    return text or f"died with status {status}"


def _attempt(call):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MOST
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        call()
    except HwsearchError as error:
        return f"refused: {error}"
    except BaseException as error:  # noqa: BLE001 - that is what must not come
        return f"{type(error).__name__}: {error}"
    return "nothing"

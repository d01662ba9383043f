"""Timing single runs, with the time spent waiting for a CPU subtracted."""

import os
from collections.abc import Callable

_GAP_NS = 20_000
_TRIES = 3

WaitingNs = Callable[[], int]
"""Returns for how long this thread has waited so far for a busy CPU, nanoseconds."""


def schedstat_reader() -> WaitingNs | None:
    """Return a reader of this thread's wait time in Linux's schedstat, None without one."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return None

    def waiting_ns() -> int:
        return int(os.pread(file, 96, 0).split()[1])

    try:
        waiting_ns()
    except (OSError, ValueError, IndexError):
        return None
    return waiting_ns


def timed_run(
    run: Callable[[], object], clock: Callable[[], int], waiting_ns: WaitingNs | None
) -> tuple[int, int]:
    """Run once and return the running time and the time waiting for a CPU, nanoseconds.

    On a busy machine most runs of a few milliseconds are interrupted by another process's time
    slice, so that any quantile of wall times measures that process. The clock and the wait time
    cannot be read at once: when the thread was interrupted between the two, the reading or the run
    is repeated, a few times at most.
    """
    if waiting_ns is None:
        start = clock()
        run()
        return clock() - start, 0
    wall, waiting = 0, 0
    for _ in range(_TRIES):
        start, waiting_before = _start(clock, waiting_ns)
        run()
        end = clock()
        wall, waiting = end - start, waiting_ns() - waiting_before
        if clock() - end < _GAP_NS and waiting < wall:
            return wall - waiting, waiting
    return (wall - waiting, waiting) if waiting < wall else (wall, 0)


def _start(clock: Callable[[], int], waiting_ns: WaitingNs) -> tuple[int, int]:
    waiting = now = 0
    for _ in range(_TRIES):
        before = clock()
        waiting, now = waiting_ns(), clock()
        if now - before < _GAP_NS:
            break
    return now, waiting

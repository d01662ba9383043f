"""Timing one run, with the waiting for a CPU told apart from the running."""

import os
from collections.abc import Callable

_GAP_NS = 20_000
_TRIES = 3

WaitedNs = Callable[[], int]
"""How long this thread has been waiting so far for a CPU that other work had, nanoseconds."""


def waited_by_schedstat() -> WaitedNs | None:
    """Read the Linux scheduler's account of the calling thread; None where there is none."""
    try:
        account = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return None

    def waited_ns() -> int:
        return int(os.pread(account, 96, 0).split()[1])

    try:
        waited_ns()
    except (OSError, ValueError, IndexError):
        return None
    return waited_ns


def timed_run(
    run: Callable[[], object], clock: Callable[[], int], waited_ns: WaitedNs | None
) -> tuple[int, int]:
    """Run once, and tell the waiting for a CPU from the rest of the time.

    On a busy machine a run of a few milliseconds is interrupted by another process's time slice
    more often than not, and then any quantile of wall times measures the other process.

    The clock and the account of waiting cannot be read at once. When this thread was interrupted
    between the two, the waiting does not belong to the time, and the reading or the run is
    repeated, a few times at most.

    Args:
        run: What is timed.
        clock: Nanoseconds.
        waited_ns: The account of waiting, None where the system keeps none.

    Returns:
        Nanoseconds without the waiting, and nanoseconds of waiting.
    """
    if waited_ns is None:
        start = clock()
        run()
        return clock() - start, 0
    wall, waiting = 0, 0
    for _ in range(_TRIES):
        start, waited_before = _mark(clock, waited_ns)
        run()
        end = clock()
        waited_after = waited_ns()
        wall, waiting = end - start, waited_after - waited_before
        if clock() - end < _GAP_NS and waiting < wall:
            return wall - waiting, waiting
    return (wall - waiting, waiting) if waiting < wall else (wall, 0)


def _mark(clock: Callable[[], int], waited_ns: WaitedNs) -> tuple[int, int]:
    waited = now = 0
    for _ in range(_TRIES):
        before = clock()
        waited, now = waited_ns(), clock()
        if now - before < _GAP_NS:
            break
    return now, waited

"""Memory that is freed and asked for again, without the system in between."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Of mallopt(3): free memory at the end of the heap that is given back, and the size from which
# memory is asked for apart from the heap, to be given back as soon as it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL = 2**31 - 1
# Where glibc's own adjustment ends, which is off once either has been set.
_TRIM, _MMAP = 64 << 20, 32 << 20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory until the end, on glibc; elsewhere this does nothing.

    Every layer of a large batch takes hundreds of megabytes. Given back and taken anew each time,
    they come from the system page by page, which took more than half of the time of a
    recalibration.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, _ALL)
        libc.mallopt(_MMAP_THRESHOLD, _ALL)
    try:
        yield
    finally:
        with suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, _TRIM)
            libc.mallopt(_MMAP_THRESHOLD, _MMAP)
            libc.malloc_trim(0)

"""CPUs and memory that this process may use: affinity and the limits of its control groups.

A container is a control group (cgroup) of version 1 or 2, or lies in several nested ones, whose
limits all hold. ``root``, the root of the file system, can be replaced by a test tree.
"""

import math
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path("/")
_FALLBACK_BYTES = 4 << 30
_PERIOD_US = 100_000
_UNLIMITED_BYTES = 1 << 60  # version 1 writes the largest number of pages for no limit
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
_MEMORY_USED = ("memory.current", "memory.usage_in_bytes")


def usable_cpus(root: Path = ROOT) -> list[int]:
    """Return the sorted numbers of the CPUs that this process may run on; quotas do not count."""
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    for group in _groups("cpuset", root):
        names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
        listed = next(filter(None, (_cpu_list(group / name) for name in names)), allowed)
        # Where the two contradict each other, the system acts on affinity.
        allowed = allowed & listed or allowed
    return sorted(allowed)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPU time per second that the container may use, None without a limit.

    A quota of 1.5 is the time of one and a half CPUs. A container that exceeds it within a period,
    mostly 0.1 s, is paused until the next one.
    """
    return min((quota for _, quota in _quotas(root)), default=None)


def thread_limit(root: Path = ROOT) -> int:
    """Return the number of threads that can run at once: usable CPUs, or the quota rounded up."""
    quota = cpu_quota(root)
    n_cpus = len(usable_cpus(root))
    return n_cpus if quota is None else max(1, min(n_cpus, math.ceil(quota)))


def quota_text(root: Path = ROOT) -> str | None:
    """Name the CPU quota, such as "1.5 CPUs"; None without one."""
    quota = cpu_quota(root)
    return None if quota is None else f"{quota:.3g} CPU{'' if quota == 1 else 's'}"


def throttled_periods(root: Path = ROOT) -> int:
    """Return the number of periods so far in which a quota has paused the container."""
    return sum(_fields(group / "cpu.stat").get("nr_throttled", 0) for group, _ in _quotas(root))


def cpu_instructions(root: Path = ROOT) -> frozenset[str]:
    """Return the processor's instruction sets by Linux's names; none on other systems."""
    flags = re.search(
        r"^(?:flags|Features)\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.MULTILINE
    )
    return frozenset(flags.group(1).split() if flags else ())


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """Return the container's memory limit, None where it is not below the machine's memory."""
    limit = min((limit for _, limit in _memory_limits(root)), default=None)
    total = _fields(root / "proc/meminfo").get("MemTotal")
    return None if limit is None or (total is not None and limit >= total) else limit


def available_memory_bytes(root: Path = ROOT) -> int:
    """Return the memory available without swapping and within the container's limit.

    Cached files count as available, as the system frees their memory first.
    """
    info = _fields(root / "proc/meminfo")
    found = [info["MemAvailable"]] if "MemAvailable" in info else []
    for group, limit in _memory_limits(root):
        used = next(filter(None, (_parsed(_read(group / name)) for name in _MEMORY_USED)), 0)
        stat = _fields(group / "memory.stat")
        cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
        found.append(max(0, limit - max(0, used - cached)))
    return min(found, default=_physical_bytes())


def _memory_limits(root: Path) -> Iterator[tuple[Path, int]]:
    for group in _groups("memory", root):
        limits = [_parsed(_read(group / name)) for name in _MEMORY_LIMITS]
        # Version 1 has the limits of ancestors here, also of those outside a container's view.
        limits.append(_fields(group / "memory.stat").get("hierarchical_memory_limit"))
        known = [limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES]
        yield from ((group, limit) for limit in known)


def _quotas(root: Path) -> Iterator[tuple[Path, float]]:
    """Yield the control groups that have a CPU quota, and the quota in CPUs."""
    for group in _groups("cpu", root):
        quota, _, period = _read(group / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _read(group / "cpu.cfs_quota_us")
            period = _read(group / "cpu.cfs_period_us")
        quota_us, period_us = _parsed(quota), _parsed(period) or _PERIOD_US
        if quota_us:
            yield group, quota_us / period_us


def _groups(controller: str, root: Path) -> tuple[Path, ...]:
    """Return the folders of the process's control group and of its ancestors, of both versions.

    A container often sees its own group as the top of the tree while ``/proc/self/cgroup`` has its
    path in the host's tree: missing folders have no limit, and the top always counts.
    """
    return _folders(controller, root, _read(root / "proc/self/cgroup"))


@lru_cache  # resolving paths takes longer than reading the limits
def _folders(controller: str, root: Path, groups: str) -> tuple[Path, ...]:
    mount = root / "sys/fs/cgroup"
    joint = [each for each in sorted(mount.glob("*,*")) if controller in each.name.split(",")]
    tops = {"": [mount, mount / "unified"], controller: [mount / controller, *joint]}
    paths = dict.fromkeys(tops, Path())
    for line in groups.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        own = Path(path.strip().lstrip("/"))
        named = "" if not controllers else controller
        # A process that was moved out of its namespace's tree has a path that leads upwards.
        if (not controllers or controller in controllers.split(",")) and ".." not in own.parts:
            paths[named] = own
    return tuple(
        dict.fromkeys(
            group.resolve()
            for version, folders in tops.items()
            for top in folders
            for group in (top / paths[version], *(top / each for each in paths[version].parents))
        )
    )


def _cpu_list(path: Path) -> set[int]:
    """Read a list of CPUs such as ``0-3,8``; empty where there is none."""
    parts = [part.partition("-") for part in _read(path).strip().split(",") if part]
    try:
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in parts]
    except ValueError:
        return set()
    return set().union(*ranges)


def _physical_bytes() -> int:
    """Return half of the machine's memory, used where available memory is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return _FALLBACK_BYTES


def _fields(path: Path) -> dict[str, int]:
    """Read lines of a name and a number, in bytes where the unit is kB."""
    lines = re.findall(r"^(\w+):?[ \t]+(\d+)( kB)?$", _read(path), re.MULTILINE)
    return {name: int(number) * (1024 if unit else 1) for name, number, unit in lines}


def _parsed(text: str) -> int | None:
    """Return a non-negative integer; None for "max", -1 (no limit) and other text."""
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

"""Fingerprint of the processor: all its properties that affect latency."""

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from hwsearch.machine import cpu_instructions, quota_text, usable_cpus

_CPUINFO = Path("/proc/cpuinfo")
_SYSTEM = Path("/sys/devices/system/cpu")
# Instructions by which runtimes choose their kernels.
_INSTRUCTIONS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


def cpu_fingerprint() -> dict[str, str | int]:
    """Describe this machine's processor and system."""
    text = _read(_CPUINFO)
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    present = cpu_instructions()
    return {
        "cpu": (model.group(1).strip() if model else platform.processor()) or "unknown",
        "architecture": platform.machine() or "unknown",
        "instructions": " ".join(each for each in _INSTRUCTIONS if each in present) or "unknown",
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        **({"cpu quota": quota} if (quota := quota_text()) else {}),
    }


def governor(cpu: int) -> str:
    """Return the frequency governor of a CPU, "unknown" where the system does not report it."""
    return _read(_SYSTEM / f"cpu{cpu}" / "cpufreq" / "scaling_governor").strip() or "unknown"


def choose_cpus(n: int) -> list[int]:
    """Choose CPUs for ``n`` threads, on different cores where possible.

    The highest numbers come first: interrupts are mostly handled by the lowest CPUs.
    """
    cpus = usable_cpus()[::-1]
    of_cores: dict[str, int] = {}
    for cpu in cpus:
        siblings = _read(_SYSTEM / f"cpu{cpu}" / "topology" / "thread_siblings_list").strip()
        of_cores.setdefault(siblings or str(cpu), cpu)
    ordered = dict.fromkeys([*of_cores.values(), *cpus])
    return sorted([*ordered][:n])


def digest(fingerprint: Mapping[str, str | int]) -> str:
    """Return twelve hex digits of the SHA-256 of a fingerprint."""
    text = json.dumps(dict(fingerprint), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Return the fields in which two fingerprints differ, as text."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in names)

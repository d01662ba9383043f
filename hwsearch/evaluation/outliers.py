"""Latencies too good to be taken at their word."""

from collections.abc import Mapping
from dataclasses import dataclass

# The work that a processor does in a millisecond differs from subnet to subnet, but the pace of a
# new one exceeds the highest of a few others by a few percent, not by a quarter.
MARGIN = 1.25
LEAST_KNOWN = 4


@dataclass(slots=True)
class Pace:
    """The highest pace, in MACs per millisecond, that latencies believed so far amount to.

    A search looks for the best of many measurements, so one that is wrong the right way wins it:
    the process or the anchor had a bad moment, or the runtime did not do the work. What cannot be
    told by its interval can be told by its pace.
    """

    highest: float = 0.0
    known: int = 0

    def believe(self, latency_ms: float, macs: int) -> None:
        """Count a latency among those that others are compared with."""
        self.highest = max(self.highest, macs / latency_ms)
        self.known += 1

    def suspects(self, latencies_ms: Mapping[str, float], macs: Mapping[str, int]) -> list[str]:
        """Return the names whose pace is far above that of all others, and believe the rest.

        Args:
            latencies_ms: Name -> a new latency in milliseconds.
            macs: Name -> the MACs of one run.
        """
        found = []
        for name in sorted(latencies_ms, key=lambda each: macs[each] / latencies_ms[each]):
            pace = macs[name] / latencies_ms[name]
            if self.known >= LEAST_KNOWN and pace > MARGIN * self.highest:
                found.append(name)
            else:
                self.believe(latencies_ms[name], macs[name])
        return found

"""Detection of latencies that are too low to be plausible."""

from collections.abc import Mapping
from dataclasses import dataclass

# The MACs per millisecond differ between subnets, but a new subnet exceeds the highest of a few
# others by a few percent, not by 25%.
MARGIN = 1.25
LEAST_KNOWN = 4


@dataclass(slots=True)
class Pace:
    """The highest pace, in MACs per millisecond, of the accepted latencies.

    A search selects the best of many measurements, so that it would select a latency that is too
    low by an error of the process, the anchor or the runtime. Such an error need not show in the
    interval, but it shows in the pace.
    """

    highest: float = 0.0
    known: int = 0

    def believe(self, latency_ms: float, macs: int) -> None:
        """Accept a latency, to which others are compared."""
        self.highest = max(self.highest, macs / latency_ms)
        self.known += 1

    def suspects(self, latencies_ms: Mapping[str, float], macs: Mapping[str, int]) -> list[str]:
        """Return the names of latencies whose pace is far above all others; accept the rest."""
        found = []
        for name in sorted(latencies_ms, key=lambda each: macs[each] / latencies_ms[each]):
            pace = macs[name] / latencies_ms[name]
            if self.known >= LEAST_KNOWN and pace > MARGIN * self.highest:
                found.append(name)
            else:
                self.believe(latencies_ms[name], macs[name])
        return found

"""Where the work of a search is cut into pieces for workers, and what they find is kept."""

from collections.abc import Sequence

from hwsearch.errors import HwsearchError
from hwsearch.evaluation.evaluator import Evaluator, Values
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.run.cluster.jobs import Findings, Known, Work
from hwsearch.space import Architecture
from hwsearch.trials import Measurement


class SearchDesk:
    """One quantity of one architecture at a time: its latency, and then its score.

    Args:
        evaluator: Of the search; its store receives all findings.
        quantities: What is measured of every architecture.
    """

    def __init__(self, evaluator: Evaluator, quantities: Sequence[str]) -> None:
        self._evaluator = evaluator
        self._quantities = sorted(quantities, key=lambda quantity: quantity != LATENCY)
        samples = evaluator.task.search
        self._contexts = (evaluator.latency_context, evaluator.score_context(samples))

    def step(self, arch: Architecture) -> Work | None:
        """Return the next piece of work on an architecture; see `Desk.step`."""
        known = self.values(arch)
        missing = next((each for each in self._quantities if each not in known), None)
        if missing is None:
            return None
        return Work(archs=(arch,), quantities=(missing,), known=self._known(arch, missing))

    def keep(self, findings: Findings) -> None:
        """Store what was measured.

        Raises:
            HwsearchError: It was measured under other circumstances than those of this search.
        """
        for measurement in findings.measurements:
            if not measurement.context.startswith(self._contexts):
                raise HwsearchError(
                    f"a worker measured {measurement.quantity} of {measurement.key} under other "
                    f"circumstances ({measurement.context}) than this search "
                    f"({' or '.join(self._contexts)}); end it, and start it again with the same "
                    "version of hwsearch, weights and data"
                )
        self._evaluator.store.add_all(findings.measurements)
        for measurement in findings.measurements:
            if measurement.quantity == LATENCY:
                self._believe(measurement)

    def values(self, arch: Architecture) -> Values:
        """Return what is known of an architecture; see `Desk.values`."""
        return self._evaluator.known_values(arch, self._quantities)

    def _believe(self, latency: Measurement) -> None:
        """Let later latencies be compared with this one."""
        net, store = self._evaluator.net, self._evaluator.store
        archs = net.space.architectures([store.trial(latency.key).choices])
        self._evaluator.pace.believe(latency.value, int(net.exact("macs", archs)[0]))

    def _known(self, arch: Architecture, quantity: str) -> Known:
        pace = self._evaluator.pace
        if quantity == LATENCY:
            return Known(pace=(pace.highest, pace.known))
        store = self._evaluator.store
        return Known(measurements=tuple(store.measurements(arch.key, purpose="search")))

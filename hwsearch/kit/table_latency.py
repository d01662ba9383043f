"""Latency on another machine's device, predicted from the latency table of a kit."""

import numpy as np
from numpy.typing import NDArray

from hwsearch.chains import ChainIndex
from hwsearch.errors import InputError
from hwsearch.prediction.latency import LatencyPredictor
from hwsearch.restriction import widened
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.tables import LatencyTable

FEWEST = 8


class TableLatency:
    """Predicts latencies from a kit's table.

    Raises:
        InputError: The table is of another supernet or search space, or has too few subnets.
    """

    def __init__(self, net: Supernet, table: LatencyTable) -> None:
        table.check_made_for(net.family, net.structures_digest, where="what the kit measured")
        if len(table.subnets) < FEWEST:
            raise InputError(
                f"the kit's table holds {len(table.subnets)} subnets, and latencies are predicted "
                f"from {FEWEST} or more; make a kit with more --subnets"
            )
        mappings = [subnet.architecture for subnet in table.subnets]
        try:
            archs = net.space.architectures(mappings)
        except InputError:  # the search and the kit cover different parts of the space
            archs = net.full_space.architectures(mappings)
        self._space, index = archs.space, None
        if net.timed_blocks(net.space.smallest()[0]) is not None:
            index = ChainIndex(self._space, net.timed_blocks)
        covering = [] if index is None or table.missing(index.specs) else [table]
        self._predictor = LatencyPredictor(self._space, index, covering)
        self._predictor.fit(archs, [subnet.latency_ms for subnet in table.subnets])

    def __call__(self, archs: Architectures) -> NDArray[np.float64]:
        """Predict n latencies: (n,) ms."""
        return self._predictor.predict_mean(self._own(archs))

    def interval(self, archs: Architectures) -> tuple[NDArray[np.float64], ...]:
        """Predict n latencies with their 95% intervals: value, low and high, (n,) ms each."""
        own = self._own(archs)
        return (self._predictor.predict_mean(own), *self._predictor.interval(own))

    def _own(self, archs: Architectures) -> Architectures:
        return archs if archs.space is self._space else widened(archs, self._space)

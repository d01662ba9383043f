"""Latencies on a machine that is elsewhere, predicted from what a kit measured there."""

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError
from hwsearch.restriction import widened
from hwsearch.space import Architectures
from hwsearch.supernets.base import Supernet
from hwsearch.surrogates.latency import LatencyPredictor
from hwsearch.tables import LatencyTable

_NORMAL = 1.959964  # a 95% interval in standard deviations
FEWEST = 8


class TableLatency:
    """Predicts the latency of a supernet's architectures from a kit's table.

    Args:
        net: The supernet.
        table: What was measured.

    Attributes:
        table: The same.

    Raises:
        InputError: The table is of another supernet or search space, or has too few subnets.
    """

    def __init__(self, net: Supernet, table: LatencyTable) -> None:
        table.check_made_for(net.card.name, net.full_space.digest, where="what the kit measured")
        if len(table.subnets) < FEWEST:
            raise InputError(
                f"the kit's table holds {len(table.subnets)} subnets, and latencies are predicted "
                f"from {FEWEST} or more; make a kit with more --subnets"
            )
        self.table = table
        mappings = [subnet.architecture for subnet in table.subnets]
        try:
            archs = net.space.architectures(mappings)
        except InputError:  # a part of the space is searched, and the kit knows another
            archs = net.full_space.architectures(mappings)
        self._space = archs.space
        self._predictor = LatencyPredictor(archs.space, net.network.blocks, table)
        self._predictor.fit(archs, np.array([subnet.latency_ms for subnet in table.subnets]))

    def __call__(self, archs: Architectures) -> NDArray[np.float64]:
        """Predict n latencies: (n,) ms."""
        return self.predict(archs)[0]

    def predict(self, archs: Architectures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict n latencies and how far they may be off: mean and standard deviation, (n,) ms."""
        own = archs if archs.space is self._space else widened(archs, self._space)
        mean, deviation = self._predictor.predict(own)
        return np.asarray(mean, np.float64), np.asarray(deviation, np.float64)

    def interval(
        self, archs: Architectures
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Predict n latencies with their 95% intervals: value, low and high, (n,) ms each."""
        mean, deviation = self.predict(archs)
        low = np.maximum(mean - _NORMAL * deviation, np.finfo(np.float64).tiny)
        return mean, low, mean + _NORMAL * deviation

"""Architectures with missing values: predictions, and the choice of those to measure.

A missing value, such as the latency on this device, is predicted as a multiple of a proxy, such
as the latency on another device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.constraints import Constraint, satisfied
from hwsearch.errors import InputError
from hwsearch.objectives import (
    BoolArray,
    Estimate,
    FloatArray,
    Objective,
    hypervolume,
    is_non_dominated,
    known_as,
    to_losses,
)
from hwsearch.optimizer.history import beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.prediction.log_ratio import LogRatioModel
from hwsearch.run.front import contender_rows
from hwsearch.space import Architectures

Rows = NDArray[np.int64]

_FEWEST: Final = 4  # measured values before a multiple of a proxy is predicted
_OPTIMISM: Final = 1.0  # deviations by which a missing value may be better than predicted
_LEAST_GAIN: Final = 1e-3  # share of the hypervolume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialValues:
    """Values of n distinct architectures, some of them missing.

    Attributes:
        values: ``(n, n_objectives)`` in the objectives' units; NaN is missing. Measured values
            are written into it.
        proxies: Column -> ``(n,)`` numbers to which missing values may be proportional.
    """

    archs: Architectures
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    values: FloatArray
    proxies: Mapping[int, FloatArray]

    @property
    def complete(self) -> BoolArray:
        """``(n,)``: architectures without a missing value."""
        known: BoolArray = np.all(~np.isnan(self.values), axis=1)
        return known

    def forecast(self) -> tuple[FloatArray, FloatArray]:
        """Return values and standard deviations, ``(n, n_objectives)`` each; predict missing ones.

        Deviations are 0 for known values. Both are NaN without a proxy, or with fewer than four
        known values of the objective.
        """
        values, deviations = self.values.copy(), np.zeros_like(self.values)
        for column in np.flatnonzero(np.isnan(values).any(axis=0)).tolist():
            missing = np.isnan(values[:, column])
            deviations[missing, column] = np.nan
            if column not in self.proxies or (~missing).sum() < _FEWEST:
                continue
            proxy = self.proxies[column]
            try:
                model = LogRatioModel(self.archs.space)
                model.fit(self.archs[~missing], values[~missing, column], proxy[~missing])
                found = model.predict(self.archs[missing], proxy[missing])
            except InputError:  # a value or a proxy is not positive
                continue
            values[missing, column], deviations[missing, column] = found
        return values, deviations

    def fill(self, row: int, found: Mapping[str, float]) -> None:
        """Write the measured values of a row, by objective."""
        for column, objective in enumerate(self.objectives):
            if objective.name in found:
                self.values[row, column] = found[objective.name]

    def told(self, rows: Rows) -> list[dict[str, float | Estimate]]:
        """Return rows without NaN forecasts as `Optimizer.tell` takes them, with estimates."""
        values, deviations = self.forecast()
        names = [objective.name for objective in self.objectives]
        return [
            dict(zip(names, map(known_as, values[row], deviations[row]), strict=True))
            for row in rows
        ]

    def worth_measuring(self, left: BoolArray, n: int) -> Rows:
        """Return up to n rows of ``left``, ``(n_archs,)``, that may be on the front, best first.

        Rows with a value that cannot be predicted yet are selected by their proxies, spread along
        the front of the proxies; rows without a proxy are always selected. Others are selected if
        they are on the front, and add a thousandth to its hypervolume, when their missing values
        are one standard deviation better than predicted.
        """
        values, deviations = self.forecast()
        unclear = np.flatnonzero(left & np.isnan(values).any(axis=1))
        if len(unclear):
            return self._spread(unclear, n)
        signs = to_losses(np.ones((1, len(self.objectives))), self.objectives)
        hopeful = values - _OPTIMISM * deviations * signs
        alive = np.flatnonzero(left | self.complete)
        tables = (self._by_name(values[alive]), self._by_name(hopeful[alive]))
        rows = alive[contender_rows(*tables, self.objectives, self.constraints)]
        rows = rows[left[rows]]
        losses = to_losses(values, self.objectives)
        reference = beyond_worst(losses[alive])
        feasible = satisfied(self._by_name(values), self.constraints)
        front = losses[self.complete & feasible]
        gains = hypervolume_gain(to_losses(hopeful, self.objectives)[rows], front, reference)
        order = np.argsort(-gains, kind="stable")
        enough = gains[order] > _LEAST_GAIN * hypervolume(front, reference)
        return rows[order][enough][:n]

    def _spread(self, rows: Rows, n: int) -> Rows:
        """Return rows of the proxies' front, evenly spaced along the first objective."""
        values = self.values[rows]
        for column in np.flatnonzero(np.isnan(values).any(axis=0)).tolist():
            if column not in self.proxies:
                return rows[:n]
            values[:, column] = self.proxies[column][rows]
        losses = to_losses(values, self.objectives)
        front = np.flatnonzero(is_non_dominated(losses))
        front = front[np.argsort(losses[front, 0], kind="stable")]
        places = np.linspace(0, len(front) - 1, min(n, len(front))).round().astype(np.int64)
        return rows[front[places]]

    def _by_name(self, values: FloatArray) -> dict[str, FloatArray]:
        return {o.name: values[:, column] for column, o in enumerate(self.objectives)}

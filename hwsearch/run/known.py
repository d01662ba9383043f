"""Architectures of which a search knows a part: which of them are worth measuring.

What is missing, such as the latency on this device, is predicted as a multiple of a proxy, such as
the latency on another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InputError
from hwsearch.objectives import (
    BoolArray,
    Constraint,
    Estimate,
    FloatArray,
    Objective,
    hypervolume,
    is_non_dominated,
    known_as,
    satisfied,
    to_losses,
)
from hwsearch.optimizer.history import beyond_worst
from hwsearch.optimizer.hypervolume_gain import hypervolume_gain
from hwsearch.prediction.log_ratio import RatioModel
from hwsearch.run.front import contender_rows
from hwsearch.space import Architectures

Rows = NDArray[np.int64]

_LEAST: Final = 4  # so many are measured before a multiple of a proxy is believed
_HOPE: Final = 1.0  # deviations by which what is missing may come out better than predicted
_LEAST_GAIN: Final = 1e-3  # of the hypervolume


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What is known of n architectures, and what their missing values may be a multiple of.

    Attributes:
        archs: n distinct architectures.
        objectives: What is traded.
        constraints: What has to hold.
        values: ``(n, n_objectives)`` in the objectives' units; NaN is missing. It is written to
            as values become known.
        proxies: Column -> ``(n,)``, for columns with missing values where there is a proxy.
    """

    archs: Architectures
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    values: FloatArray
    proxies: Mapping[int, FloatArray]

    @property
    def complete(self) -> BoolArray:
        """``(n,)``: of which nothing is missing."""
        known: BoolArray = np.all(~np.isnan(self.values), axis=1)
        return known

    def forecast(self) -> tuple[FloatArray, FloatArray]:
        """Fill in what is missing.

        Returns:
            Values and deviations, ``(n, n_objectives)`` each. Deviations are 0 where a value is
            known; both are NaN where it cannot be predicted: there is no proxy, or too little
            was measured to know what it is a multiple of.
        """
        values, deviations = self.values.copy(), np.zeros_like(self.values)
        for column in np.flatnonzero(np.isnan(values).any(axis=0)).tolist():
            missing = np.isnan(values[:, column])
            deviations[missing, column] = np.nan
            if column not in self.proxies or (~missing).sum() < _LEAST:
                continue
            proxy = self.proxies[column]
            try:
                model = RatioModel(self.archs.space)
                model.fit(self.archs[~missing], values[~missing, column], proxy[~missing])
                found = model.predict(self.archs[missing], proxy[missing])
            except InputError:  # it is of no sign that a multiple could have
                continue
            values[missing, column], deviations[missing, column] = found
        return values, deviations

    def fill(self, row: int, found: Mapping[str, float]) -> None:
        """Write what was measured of a row."""
        for column, objective in enumerate(self.objectives):
            if objective.name in found:
                self.values[row, column] = found[objective.name]

    def told(self, rows: Rows) -> list[dict[str, float | Estimate]]:
        """Return rows as an optimiser takes them: what is missing as an estimate.

        Rows of which something cannot be predicted either must not be among them.
        """
        values, deviations = self.forecast()
        return [
            {
                objective.name: known_as(value, deviation)
                for objective, value, deviation in zip(
                    self.objectives, values[row].tolist(), deviations[row].tolist(), strict=True
                )
            }
            for row in rows
        ]

    def worth_measuring(self, left: BoolArray, n: int) -> Rows:
        """Return up to n rows that may belong to the front, the most promising first.

        Those of which something cannot be predicted yet are taken by their proxies alone, spread
        along the front of these; what has no proxy either is always worth it. The others are
        worth it if they belong to the front, and add a thousandth to its hypervolume, when they
        come out a deviation better than predicted.

        Args:
            left: ``(n_archs,)``: which are not complete, and may be measured.
            n: How many.
        """
        values, deviations = self.forecast()
        unclear = np.flatnonzero(left & np.isnan(values).any(axis=1))
        if len(unclear):
            return self._spread(unclear, n)
        signs = to_losses(np.ones((1, len(self.objectives))), self.objectives)
        hopeful = values - _HOPE * deviations * signs
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
        """Rows of the front by proxies, evenly spaced along the first objective."""
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

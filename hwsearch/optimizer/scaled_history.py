"""A view of a history whose objectives with a limit are on a logarithmic scale."""

from collections.abc import Callable

import numpy as np

from hwsearch.objectives import FloatArray
from hwsearch.optimizer.history import History
from hwsearch.prediction.target_transform import TargetTransform
from hwsearch.space import Architectures


class ScaledHistory(History):
    """What surrogates and expected gains work on.

    Values of a measured objective with a limit are ``log(value - limit)``, or
    ``-log(limit - value)`` where it is maximised; they rise with the values. All else, constraints
    among it, is as in the given history, which gets the selections and the forecasts.
    """

    def __init__(self, given: History) -> None:
        super().__init__(given.space, given.objectives, given.constraints, given.start)
        self._given = given
        self._scales = [
            TargetTransform(1 if o.direction == "max" else -1, o.limit)
            if o.limit is not None and o.computed is None
            else TargetTransform()
            for o in given.objectives
        ]
        self.approximations, self.selections = given.approximations, given.selections
        self.asked, self.told = given.asked, given.told
        self.values, self.first_values = (
            self._columns(TargetTransform.forward, array)
            for array in (given.values, given.first_values)
        )
        self.deviations = np.column_stack(
            [
                scale.forward_deviation(given.values[:, column], given.deviations[:, column])
                for column, scale in enumerate(self._scales)
            ]
        )

    def in_units(self, values: FloatArray) -> FloatArray:
        """Return values (n, n_objectives) in the objectives' units."""
        return self._columns(lambda scale, y: scale.backward(y, np.zeros_like(y))[0], values)

    def by_name(self, values: FloatArray) -> dict[str, FloatArray]:
        """Return the columns in the objectives' units, as constraints need them."""
        return super().by_name(self.in_units(values))

    def record_forecasts(
        self, archs: Architectures, mean: FloatArray, deviation: FloatArray
    ) -> None:
        """Record predictions in the given history, in the objectives' units."""
        pairs = [
            scale.backward(mean[:, column], deviation[:, column])
            for column, scale in enumerate(self._scales)
        ]
        means, deviations = (np.column_stack(columns) for columns in zip(*pairs, strict=True))
        self._given.record_forecasts(archs, means, deviations)

    def _columns(
        self, function: Callable[[TargetTransform, FloatArray], FloatArray], values: FloatArray
    ) -> FloatArray:
        columns = [function(scale, values[:, j]) for j, scale in enumerate(self._scales)]
        return np.column_stack(columns)

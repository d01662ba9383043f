"""History of a search: proposed architectures and told values, the only input of a tactic."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwsearch.constraints import Constraint, satisfied, total_violation
from hwsearch.errors import InputError
from hwsearch.objectives import (
    BoolArray,
    Estimate,
    FloatArray,
    Objective,
    is_non_dominated,
    to_losses,
)
from hwsearch.optimizer.approximations import ApproximationCheck
from hwsearch.space import Architectures, SearchSpace

if TYPE_CHECKING:
    from hwsearch.prediction.selection import Selection

N_INITIAL = 6  # size of the initial design, which also fixes the reference point

_REFERENCE_MARGIN = 0.1  # of the range between best and worst


Told = Mapping[str, float | Estimate]


class History:
    """Architectures asked and told, with their values in the order of telling.

    Attributes:
        start: Batches of architectures worth evaluating, known before the search; may be none.
        asked: All that was proposed, or told without a proposal; pairwise distinct.
        told: All evaluated architectures, failed ones included, in the order of telling.
        values: ``(len(told), n_objectives)`` in the objectives' units; a failed row is all NaN.
        first_values: The same as they were first told, without revisions.
        deviations: The same shape; 0 except where the value is an `Estimate`.
        approximations: Column of each objective with an approximation -> its check.
        latest_forecasts: Key -> objective -> mean and deviation, of the last predicted batch.
        selections: Column of an objective and number of values -> the surrogate selected for
            them, in the order of selection.
    """

    def __init__(
        self,
        space: SearchSpace,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        start: tuple[Architectures, ...] = (),
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.approximations = {
            column: ApproximationCheck(objective)
            for column, objective in enumerate(self.objectives)
            if objective.approximation is not None and objective.computed is None
        }
        self.start = start
        self.asked = space.sample(0, 0)
        self.told = space.sample(0, 0)
        self.values: FloatArray = np.empty((0, len(self.objectives)))
        self.first_values = self.values
        self.deviations: FloatArray = np.empty((0, len(self.objectives)))
        self.latest_forecasts: dict[str, dict[str, tuple[float, float]]] = {}
        self.selections: dict[tuple[int, int], Selection] = {}

    def record_forecasts(
        self, archs: Architectures, mean: FloatArray, deviation: FloatArray
    ) -> None:
        """Record the predictions ``(n, n_objectives)`` of the measured objectives of a batch."""
        columns = [j for j, objective in enumerate(self.objectives) if objective.computed is None]
        self.latest_forecasts = {
            key: {self.objectives[j].name: (float(m[j]), float(d[j])) for j in columns}
            for key, m, d in zip(archs.ids, mean, deviation, strict=True)
        }

    def ask(self, archs: Architectures) -> None:
        """Record architectures as proposed; raise InputError for another space or a repetition."""
        self.asked = self._extended(self.asked, archs, "proposed")

    def tell(self, archs: Architectures, values: Sequence[Told | None]) -> None:
        """Add results, all or none; errors as for `Optimizer.tell`."""
        if isinstance(values, Mapping) or len(values) != len(archs):
            raise InputError(
                f"{len(values)} results were told for {len(archs)} architectures; "
                "give a list with one mapping, or None for a failure, for each"
            )
        told = self._extended(self.told, archs, "told")
        measured = [self._measured(entry) for entry in values]
        known = np.array([row is not None for row in measured], dtype=np.bool_)
        rows = np.full((len(archs), len(self.objectives)), np.nan)
        deviations = np.zeros_like(rows)
        rows[known] = self.exact(archs[known])
        for position in np.flatnonzero(known):
            for column, estimate in (measured[position] or {}).items():
                rows[position, column], deviations[position, column] = estimate
        self._judge(archs[known], rows[known], deviations[known])
        self.told = told
        self.values = np.concatenate([self.values, rows])
        self.first_values = np.concatenate([self.first_values, rows])
        self.deviations = np.concatenate([self.deviations, deviations])
        self.asked = Architectures.concatenate([self.asked, archs]).unique()

    def revise(self, name: str, values: Mapping[str, float]) -> None:
        """Replace values of an objective by key, where one was told that is no estimate."""
        column = [objective.name for objective in self.objectives].index(name)
        revised, keys = self.values.copy(), self.told.ids
        for row in np.flatnonzero(self.succeeded & (self.deviations[:, column] == 0)):
            revised[row, column] = values.get(keys[row], revised[row, column])
        self.values = revised

    def exact(self, archs: Architectures) -> FloatArray:
        """Compute the exact objectives: ``(n, n_objectives)``, NaN in the measured columns."""
        values = np.full((len(archs), len(self.objectives)), np.nan)
        for column, objective in enumerate(self.objectives):
            if objective.computed is None or not len(archs):
                continue
            found = np.asarray(objective.computed(archs), dtype=np.float64)
            if found.shape != (len(archs),) or not np.isfinite(found).all():
                raise InputError(
                    f"exact objective {objective.name!r} gave an array of shape {found.shape} "
                    f"for {len(archs)} architectures, or numbers that are not finite; it must "
                    "give one finite number for each"
                )
            values[:, column] = found
        return values

    @property
    def n_left(self) -> int:
        """Number of architectures that have not been proposed yet."""
        return self.space.size - len(self.asked)

    @property
    def pending(self) -> Architectures:
        """Architectures that were proposed and not told, in order."""
        return self.asked.unique(self.told)

    @property
    def succeeded(self) -> BoolArray:
        """``(len(told),)``: True for rows with values, estimates among them."""
        return _complete(self.values)

    @property
    def measured(self) -> BoolArray:
        """``(len(told),)``: True for rows without estimates; only these enter the front."""
        full: BoolArray = self.succeeded & (self.deviations == 0).all(axis=1)
        return full

    @property
    def losses(self) -> FloatArray:
        """``(len(told), n_objectives)``, minimised; a failed row is all NaN."""
        return to_losses(self.values, self.objectives)

    @property
    def front(self) -> BoolArray:
        """``(len(told),)``: True where feasible, and not dominated by a feasible one."""
        return self.non_dominated(np.where(self.measured[:, np.newaxis], self.values, np.nan))

    def non_dominated(self, values: FloatArray) -> BoolArray:
        """Return ``(n,)``: True for rows of values that are feasible and not dominated by such."""
        losses = to_losses(values, self.objectives)
        losses[~self.feasible(values)] = np.nan
        return is_non_dominated(losses)

    @property
    def reference(self) -> FloatArray | None:
        """``(n_objectives,)`` losses, a margin beyond the worst of the initial design.

        It is fixed after `N_INITIAL` results, so that hypervolumes are comparable over a run; None
        before the first result.
        """
        losses = self.losses[self.measured][:N_INITIAL]
        return beyond_worst(losses) if len(losses) else None

    def feasible(self, values: FloatArray) -> BoolArray:
        """Return ``(n,)``: True for rows of values that keep all constraints."""
        if not self.constraints:
            return _complete(values)
        return satisfied(self.by_name(values), self.constraints)

    def violation(self, values: FloatArray) -> FloatArray:
        """Return constraint violations of rows of values, as shares of the bounds: ``(n,)``."""
        if not self.constraints:
            return np.zeros(len(values))
        return total_violation(self.by_name(values), self.constraints)

    def judged(self, values: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Return losses and violations of rows of values for `nsga2`; None without constraints."""
        missed = self.violation(values) if self.constraints else None
        return to_losses(values, self.objectives), missed

    def in_units(self, values: FloatArray) -> FloatArray:
        """Return values (n, n_objectives) in the objectives' units; see `ScaledHistory`."""
        return values

    def by_name(self, values: FloatArray) -> dict[str, FloatArray]:
        """Return name -> column ``(n,)`` of values ``(n, n_objectives)``."""
        names = (objective.name for objective in self.objectives)
        return dict(zip(names, values.T, strict=True))

    def _judge(self, archs: Architectures, rows: FloatArray, deviations: FloatArray) -> None:
        """Compare new values ``(len(archs), n_objectives)`` with approximations."""
        for column, check in self.approximations.items():
            before = self.succeeded & (self.deviations[:, column] == 0)
            new = deviations[:, column] == 0
            check.judge(
                self.told[before], self.first_values[before, column], archs[new], rows[new, column]
            )

    def _extended(self, before: Architectures, archs: Architectures, verb: str) -> Architectures:
        after = Architectures.concatenate([before, archs])
        if len(after.unique()) < len(after):
            ids = after.ids
            again = next(key for place, key in enumerate(ids) if key in ids[:place])
            raise InputError(f"architecture {again} was {verb} before; it can be only once")
        return after

    def _measured(self, entry: Told | None) -> dict[int, tuple[float, float]] | None:
        """Return value and deviation by column of the measured objectives; None for a failure."""
        if entry is None:
            return None
        row = {}
        for column, objective in enumerate(self.objectives):
            if objective.computed is not None:
                continue
            if objective.name not in entry:
                raise InputError(
                    f"objective {objective.name!r} is missing among the told "
                    f"{', '.join(map(repr, entry)) or 'nothing'}; tell every measured objective, "
                    "or None for a failure"
                )
            row[column] = _number(objective.name, entry[objective.name])
            _check_limit(objective, row[column][0])
        return row if all(math.isfinite(value) for value, _ in row.values()) else None


def _check_limit(objective: Objective, value: float) -> None:
    limit = objective.limit
    if limit is not None and (value >= limit if objective.direction == "max" else value <= limit):
        raise InputError(
            f"{objective.name} was told as {value}, and its limit {limit} is beyond all values; "
            "give the objective another limit, or none"
        )


def _complete(values: FloatArray) -> BoolArray:
    known: BoolArray = np.all(~np.isnan(values), axis=1)
    return known


def _number(name: str, given: object) -> tuple[float, float]:
    if isinstance(given, Estimate):
        return float(given.value), float(given.deviation)
    if given is None:
        return math.nan, 0.0
    try:
        return float(given), 0.0  # type: ignore[arg-type]  # what is no number is caught
    except (TypeError, ValueError):
        raise InputError(f"{name} was told as {given!r}; give a number, or None") from None


def beyond_worst(losses: FloatArray) -> FloatArray:
    """Return a point beyond the largest loss in every column of ``(n, n_objectives)``."""
    worst = losses.max(axis=0)
    span = worst - losses.min(axis=0)
    point: FloatArray = worst + _REFERENCE_MARGIN * np.where(span > 0, span, np.abs(worst) + 1.0)
    return point

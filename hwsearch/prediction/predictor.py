"""A surrogate for the architectures of one search space, and the installed ones."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from hwsearch.data import places
from hwsearch.encoding import thermometer
from hwsearch.errors import InputError
from hwsearch.lookup_tables import LookupTable, LookupTableSum, thermometer_tables
from hwsearch.prediction.base import FloatArray, Parametric, Surrogate, check_fitted
from hwsearch.prediction.folder import CARD, read_folder, write_folder
from hwsearch.prediction.gaussian_process import GaussianProcess
from hwsearch.prediction.linear import LinearModel
from hwsearch.prediction.registry import GAUSSIAN_PROCESS, make_surrogate, parametric_class
from hwsearch.restriction import widened
from hwsearch.space import Architectures, SearchSpace
from hwsearch.threads import one_blas_thread

if TYPE_CHECKING:
    from hwsearch.prediction.selection import Selection

AUTO: Final = "auto"
FOLDER: Final = "predictors"
_CHUNK: Final = 8192  # architectures per encoded batch


class Predictor:
    """Predicts one number of architectures, fitted to architectures with known values.

    Args:
        space: The search space of all architectures.
        surrogate: Name of the model: ``"gaussian-process"``, ``"linear"``, ``"additive"`` (linear,
            all steps up have weights of one sign), ``"pairwise"`` (linear, with weights of pairs),
            ``"trees"`` (needs XGBoost), or ``"auto"``: every fit chooses by cross-validation.

    Attributes:
        selection: The surrogate that ``"auto"`` chose, with the scores of all; None otherwise.
        facts: Further entries of its card; empty where it was fitted here.

    Raises:
        InputError: No surrogate has that name.
    """

    def __init__(self, space: SearchSpace, surrogate: str = GAUSSIAN_PROCESS) -> None:
        self.space = space
        self.facts: dict[str, Any] = {}
        self._fit_space = space  # ``space`` may be a part of it
        self.selection: Selection | None = None
        self._asked = surrogate
        self._name = GAUSSIAN_PROCESS if surrogate == AUTO else surrogate
        self._surrogate: Surrogate = make_surrogate(self._name, space)
        self._tables: dict[int | None, LookupTableSum] = {}

    def fit(self, archs: Architectures, values: ArrayLike, noise: ArrayLike | None = None) -> Self:
        """Fit the values of n architectures; replace an earlier fit.

        Args:
            archs: At least 1; repeated ones count as repeated measurements.
            values: ``(n,)``, finite, in any unit and direction.
            noise: ``(n,)``, known standard deviations of the values, in their unit; 0 by default.

        Raises:
            InputError: Architectures of another space, lengths that differ, or a number that is
                not finite.
        """
        if np.shape(values) != (len(archs),):
            raise InputError(
                f"values of shape {np.shape(values)} do not fit {len(archs)} architectures; "
                "give one number for each"
            )
        self.space.check_own(archs)
        self._tables.clear()
        self._fit_space = self.space
        rows = thermometer(archs)
        with one_blas_thread():
            if self._asked == AUTO:
                from hwsearch.prediction.selection import select_surrogate

                self.selection = select_surrogate(rows, values, self.space, noise)
                self._name = self.selection.name
            surrogate = make_surrogate(self._name, self.space)
            self._surrogate = surrogate.fit(rows, values, noise)
        return self

    def predict(self, archs: Architectures) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation, each ``(len(archs),)``, in the unit of the values.

        The deviation is that of the true value, without the known noise of a measurement.

        Raises:
            InputError: Architectures of another space, or there was no fit.
        """
        self.space.check_own(archs)
        if isinstance(self._surrogate, LinearModel):
            return self._surrogate.from_sums(self._sums(self._surrogate, archs, None))
        mean, deviation = np.empty(len(archs)), np.empty(len(archs))
        for start in range(0, max(len(archs), 1), _CHUNK):
            part = slice(start, start + _CHUNK)
            mean[part], deviation[part] = self._surrogate.predict(self._encoded(archs[part]))
        return mean, deviation

    def predict_mean(self, archs: Architectures) -> FloatArray:
        """Return the means alone, in a fraction of the time."""
        self.space.check_own(archs)
        if isinstance(self._surrogate, LinearModel):
            return self._surrogate.mean_from_sums(self._sums(self._surrogate, archs, 1)[:, 0])
        if isinstance(self._surrogate, GaussianProcess):
            return self._surrogate.predict_mean(self._encoded(archs))
        return self.predict(archs)[0]

    def widen(self, factor: float) -> Self:
        """Multiply all deviations by a factor above 0, until the next fit.

        Raises:
            InputError: The surrogate is not parametric, there was no fit, or the factor is not
                positive and finite.
        """
        parametric_class(self._name)
        if not 0.0 < factor < np.inf:
            raise InputError(f"deviations cannot be multiplied by {factor}; give a factor above 0")
        cast(Parametric, self._surrogate).widen(factor)
        self._tables.clear()
        return self

    def save(self, folder: str | Path, facts: Mapping[str, Any] | None = None) -> None:
        """Write a card and the parameters, without the fitted rows, to a folder.

        Args:
            folder: Created, or replaced.
            facts: Further entries of the card, JSON-ready; `facts` by default.

        Raises:
            InputError: The surrogate keeps its rows and cannot be saved, or there was no fit.
        """
        parametric_class(self._name)
        state = cast(Parametric, self._surrogate).state()
        facts = self.facts if facts is None else facts
        write_folder(Path(folder), self._name, self._fit_space, state, facts)

    @classmethod
    def load(cls, folder: str | Path) -> "Predictor":
        """Read a folder of `save`; raise InputError where it is missing or invalid."""
        name, space, state, facts = read_folder(Path(folder))
        predictor = cls(space, name)
        try:
            predictor._surrogate = parametric_class(name).from_state(state)
            predictor._surrogate.predict(thermometer(space.smallest()))
        except InputError as error:
            raise InputError(f"predictor {str(folder)!r} is damaged: {error}") from error
        predictor.facts = facts
        return predictor

    def within(self, space: SearchSpace) -> "Predictor":
        """Return the same predictor for a part of its space; see `SearchSpace.restrict`.

        Raises:
            InputError: The space is no part of it; the text has the first difference.
        """
        if (difference := _difference(space, self._fit_space)) is not None:
            raise InputError(difference)
        other = Predictor(space, self._name)
        other._fit_space = self._fit_space
        other._surrogate, other.facts = self._surrogate, self.facts
        return other

    def _encoded(self, archs: Architectures) -> FloatArray:
        same = self._fit_space is self.space
        return thermometer(archs if same else widened(archs, self._fit_space))

    def _sums(self, model: LinearModel, archs: Architectures, n_outputs: int | None) -> FloatArray:
        """Return all or the first of a model's sums, by lookup tables that are kept until a fit.

        Raises:
            InputError: There was no fit.
        """
        check_fitted(model, "columns_")
        if n_outputs not in self._tables:
            columns = model.columns_[:, :n_outputs]
            tables = thermometer_tables(self.space, columns[1:], self._fit_space)
            constant = LookupTable((), columns[0])
            self._tables[n_outputs] = LookupTableSum(self.space, [*tables, constant])
        return self._tables[n_outputs](archs)


def _difference(part: SearchSpace, space: SearchSpace) -> str | None:
    """Return why a space is no part of another one; None where it is."""
    known = {choice.name: choice for choice in space.choices}
    for choice in part.choices:
        if choice.name not in known:
            return f"it knows no choice {choice.name!r}"
        unseen = [option for option in choice.options if option not in known[choice.name].options]
        if unseen:
            options = ", ".join(map(repr, known[choice.name].options))
            return (
                f"it knows choice {choice.name!r} at {options} only, not at {unseen[0]!r}; leave "
                f"that out, such as by --only '{choice.name} in "
                f"{','.join(map(str, known[choice.name].options))}'"
            )
    left = space.restrict({choice.name: choice.options for choice in part.choices})
    given = {choice.name: choice for choice in part.restrict({}).choices}
    for choice in left.choices:
        if given.get(choice.name) != choice:
            return (
                f"it was fitted with choice {choice.name!r} {choice.options!r}, active "
                f"{choice.condition}, and this space has {given.get(choice.name) or 'none'}"
            )
    return None


def find_predictor(supernet: str, objective: str) -> Path | None:
    """Return the folder of a predictor, the user's own before one that ships; None without."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", supernet)
    for root in places(FOLDER):
        folder = root / name / objective
        if (folder / CARD).is_file():
            return folder
    return None


def load_predictor(path: str | Path, space: SearchSpace) -> Predictor:
    """Load a predictor for the search space that it was fitted on, or a part of that.

    Raises:
        InputError: The folder holds no readable predictor, or one of another space; the text has
            the first difference.
    """
    predictor = Predictor.load(path)
    try:
        return predictor.within(space)
    except InputError as error:
        raise InputError(f"predictor {str(path)!r} is of another search space: {error}") from error

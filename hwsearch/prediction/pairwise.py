"""Linear and pairwise interaction weights, for hundreds of rows and more."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from hwsearch.errors import InputError
from hwsearch.prediction.base import (
    FloatArray,
    check_features,
    check_fitted,
    check_rows,
    refit_folds,
    take_array,
)
from hwsearch.prediction.bayesian_regression import (
    LogNormalPrior,
    evenly_spaced,
    most_likely_deviations,
)
from hwsearch.prediction.linear import LinearModel, columns_of
from hwsearch.prediction.prior_covariance import PriorCovariance

# Logarithms of standard deviations: a factor of the linear model's weights, all pairs together,
# and the residuals.
_PRIOR: Final = LogNormalPrior(
    logs=np.log([1.0, 0.2, 0.05]),
    deviations=np.array([0.5, 1.0, 1.0]),
    bounds=[(-2.0, 2.0), (-6.0, 1.0), (-5.0, 0.0)],
)
_MAX_LIKELIHOOD_ROWS: Final = 512
_MAX_ROWS: Final = 4096  # their inner products take 128 MB


class PairwiseModel:
    """A `LinearModel` with a small weight for every pair of columns besides.

    The posterior mean of all weights is found through the inner products of the rows, whose number
    determines the cost; the variances maximise the marginal likelihood (Rasmussen and Williams,
    Gaussian processes for machine learning, 2006, section 4.2.2, on polynomial kernels). Of more
    than 4,096 rows, evenly spaced ones are used. Deterministic.

    The deviation is that of the linear part, and a constant that brings the mean variance to that
    of leave-one-out predictions (section 5.4.2 there).
    """

    def __init__(self, priors: Sequence[PriorCovariance] | None = None) -> None:
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows; see `Surrogate.fit`."""
        rows, values, known = check_rows(X, y, noise)
        linear = LinearModel(self.priors).fit(rows, values, known)
        return self._learn(linear, rows, values, known)

    def refit(self, rows: FloatArray, values: FloatArray, noise: FloatArray) -> Self:
        """Return a new model of other rows; see `refit_folds`."""
        other = type(self)(self.priors)
        return other._learn(self.linear_, rows, values, noise, self.deviations_)

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation; see `Surrogate.predict`."""
        check_fitted(self, "pairs_")
        rows = check_features(X, len(self.center_))
        sums = rows @ self.linear_.columns_[1:] + self.linear_.columns_[0]
        centred = rows - self.center_
        mean = sums[:, 0] + np.einsum("ij,ij->i", centred @ self.pairs_, centred)
        return self.linear_.transform_.backward(mean, self.linear_.deviation_of_sums(sums))

    cross_validate = refit_folds

    def widen(self, factor: float) -> None:
        """Multiply all deviations by a factor above 0, until the next fit."""
        check_fitted(self, "pairs_")
        self.linear_.widen(factor)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all parameters; see `Parametric.state`."""
        check_fitted(self, "pairs_")
        return {**self.linear_.state(), "center": self.center_, "pairs": self.pairs_}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Return the model of a state; see `Parametric.from_state`."""
        model = cls()
        model.linear_ = LinearModel.from_state(state)
        model.center_ = take_array(state, "center", 1)
        model.pairs_ = take_array(state, "pairs", 2)
        n = len(model.center_)
        if model.pairs_.shape != (n, n) or len(model.linear_.columns_) != n + 1:
            raise InputError(
                f"'columns', 'center' and 'pairs' are of {len(model.linear_.columns_) - 1}, {n} "
                f"and {model.pairs_.shape} columns; they must be of the same"
            )
        return model

    def _learn(
        self,
        linear: LinearModel,
        rows: FloatArray,
        values: FloatArray,
        known: FloatArray,
        deviations: FloatArray | None = None,
    ) -> Self:
        chosen = evenly_spaced(len(values), _MAX_ROWS)
        rows, values, known = rows[chosen], values[chosen], known[chosen]
        transform = linear.transform_
        targets, noise, mean, spread = transform.standardised(values, known)
        self.center_ = rows.mean(axis=0)
        root = linear.root_
        features = np.column_stack([np.ones(len(rows)), rows - self.center_]) @ root
        to_pairs = 2.0 / np.sqrt(max(len(self.center_), 1))
        centred = (rows - self.center_) * to_pairs
        grams = np.array([features @ features.T, (centred @ centred.T) ** 2])
        if deviations is None:
            few = evenly_spaced(len(values), _MAX_LIKELIHOOD_ROWS)
            part = grams[:, few[:, np.newaxis], few]
            deviations, _ = most_likely_deviations(part, targets[few], noise[few], _PRIOR)
        self.deviations_ = deviations
        own, pair, unexplained = (float(each) ** 2 for each in deviations)
        kernel = own * grams[0] + pair * grams[1]
        kernel[np.diag_indices_from(kernel)] += unexplained + noise**2
        inverse = cho_solve(cho_factor(kernel, lower=True), np.eye(len(kernel)))
        weights = inverse @ targets
        self.pairs_ = (centred.T * weights) @ centred * (pair * spread * to_pairs**2)
        own_weights = own * features.T @ weights
        covariance = own * np.eye(len(own_weights)) - own**2 * features.T @ inverse @ features
        left_out = (weights / np.diag(inverse)) ** 2 - noise**2
        explained = np.einsum("ij,ij->i", features @ covariance, features)
        rest = max(float(np.mean(left_out - explained)), unexplained)
        mean_weights = root @ own_weights * spread
        mean_weights[0] += mean
        self.linear_ = copy(linear)
        self.linear_.unexplained_ = float(np.sqrt(rest)) * spread
        spread_out = root @ covariance @ root.T * spread**2
        self.linear_.columns_ = columns_of(mean_weights, spread_out, self.center_)
        return self

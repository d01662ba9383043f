"""Bayesian linear regression of transformed targets, also with steps up of one sign."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls

from hwsearch.errors import InputError
from hwsearch.prediction.base import (
    BoolArray,
    FloatArray,
    check_features,
    check_fitted,
    check_rows,
    refit_folds,
    take_array,
)
from hwsearch.prediction.bayesian_regression import (
    MAX_LIKELIHOOD_ROWS,
    LogNormalPrior,
    evenly_spaced,
    most_likely_deviations,
    weight_posterior,
)
from hwsearch.prediction.prior_covariance import PriorCovariance, independent_prior
from hwsearch.prediction.target_transform import TargetTransform, candidate_transforms

# Logarithms of standard deviations, for standardised targets: of the constant and the residuals,
# their prior deviation, and bounds. Those of the weights come between them.
_CONSTANT: Final = float(np.log(2.0))
_UNEXPLAINED: Final = float(np.log(0.1))
_DEVIATION: Final = 0.75
_BOUNDS: Final = (-4.5, 3.0)
INDEPENDENT: Final = float(np.log(0.5))  # the factor of the default prior
_RANK: Final = 32  # principal directions of the posterior covariance that predictions keep
_JITTER: Final = 1e-9  # of the mean variance of a step, so that all of them vary


class LinearModel:
    """A weight for every column, with a prior by which weights are correlated.

    The targets are transformed as in `TransformedGaussianProcess`. The prior covariance of the
    weights is a sum of terms, as in a `GaussianProcess`, independent by default; the factors of
    the terms and the variance of the residuals maximise the marginal likelihood. Deterministic.

    The deviation is that of the true value: it includes the residuals, since interactions cannot
    be told from noise, and no known noise. Of the posterior covariance the 32 largest principal
    directions are kept, and the variances of the rest.

    Weights of ``steps`` have the sign of their sum: they maximise the posterior without a wrong
    sign, by non-negative least squares, and the deviation is the posterior's given that the
    weights at 0 are 0 (the normal approximation at a constrained mode).

    Args:
        priors: Terms of the prior covariance.
        steps: ``(n_features,)``, True for columns that are steps up of one sign; none by default.

    Attributes:
        columns_: (1 + n_features, n_outputs), what the constant and every column add to the sums
            that `from_sums` takes.
        root_: Root of the prior covariance of the weights of a constant and of the columns, for
            standardised targets.
    """

    transform_: TargetTransform
    columns_: FloatArray
    unexplained_: float

    def __init__(
        self, priors: Sequence[PriorCovariance] | None = None, steps: BoolArray | None = None
    ) -> None:
        self.priors = priors
        self.steps = steps

    def fit(self, X: ArrayLike, y: ArrayLike, noise: ArrayLike | None = None) -> Self:  # noqa: N803
        """Fit n rows; see `Surrogate.fit`.

        Equal targets are predicted everywhere, with a deviation of 1% of their size.
        """
        rows, values, known = check_rows(X, y, noise)
        priors = self.priors or independent_prior(rows.shape[1], INDEPENDENT)
        chosen = evenly_spaced(len(values), MAX_LIKELIHOOD_ROWS)
        few = rows[chosen] - rows.mean(axis=0)
        grams = np.array(
            [np.ones((len(few), len(few))), *(few @ each.covariance @ few.T for each in priors)]
        )
        best = -np.inf
        for transform in candidate_transforms(values):
            targets, deviations, _, scale = transform.standardised(values, known)
            logs, likelihood = most_likely_deviations(
                grams, targets[chosen], deviations[chosen], _prior(priors)
            )
            # The likelihood is that of a part of the rows where there are many.
            slope = transform.log_slope(values) * len(chosen) / len(values)
            likelihood += slope - len(chosen) * float(np.log(scale))
            if likelihood > best:
                self.transform_, best = transform, likelihood
                self._deviations = logs
        self.root_ = _prior_root(priors, self._deviations)
        self._condition(rows, values, known)
        return self

    def refit(self, rows: FloatArray, values: FloatArray, noise: FloatArray) -> Self:
        """Return a new model of other rows; see `refit_folds`."""
        other = copy(self)
        other._condition(rows, values, noise)
        return other

    def _condition(self, rows: FloatArray, values: FloatArray, known: FloatArray) -> None:
        """Set the weights' posterior given rows, with the transform and variances as they are."""
        center = rows.mean(axis=0)
        targets, noise, mean, scale = self.transform_.standardised(values, known)
        features = np.column_stack([np.ones(len(rows)), rows - center])
        residual = float(self._deviations[-1])
        weights, covariance = weight_posterior(
            features, targets, np.hypot(noise, residual), self.root_
        )
        weights, covariance = weights * scale, covariance * scale**2
        weights[0] += mean
        if self.steps is not None and self.steps.any():
            weights, covariance = _one_sign(weights, covariance, np.append(False, self.steps))
        self.unexplained_ = residual * scale
        self.columns_ = columns_of(weights, covariance, center)

    def predict(self, X: ArrayLike) -> tuple[FloatArray, FloatArray]:  # noqa: N803
        """Return mean and deviation; see `Surrogate.predict`."""
        check_fitted(self, "columns_")
        rows = check_features(X, len(self.columns_) - 1)
        return self.from_sums(rows @ self.columns_[1:] + self.columns_[0])

    def from_sums(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and deviation, each (n,), from sums over ``columns_``: (n, n_outputs)."""
        return self.transform_.backward(sums[:, 0], self.deviation_of_sums(sums))

    def deviation_of_sums(self, sums: FloatArray) -> FloatArray:
        """Return the transformed deviation, (n,), from sums over ``columns_``."""
        directions = sums[:, 2:]
        variance = np.maximum(sums[:, 1], 0.0) + np.einsum("ij,ij->i", directions, directions)
        deviation: FloatArray = np.sqrt(variance + self.unexplained_**2)
        return deviation

    def mean_from_sums(self, sums: FloatArray) -> FloatArray:
        """Return means (n,) from the first of the sums: (n,)."""
        return self.transform_.backward(sums, np.zeros(len(sums)))[0]

    cross_validate = refit_folds

    def widen(self, factor: float) -> None:
        """Multiply all deviations by a factor above 0, until the next fit."""
        check_fitted(self, "columns_")
        outputs = np.full(self.columns_.shape[1], factor)
        outputs[:2] = 1.0, factor**2  # the mean stays, and the second is a variance
        self.columns_ = self.columns_ * outputs
        self.unexplained_ *= factor

    def state(self) -> dict[str, NDArray[np.float64]]:
        """Return all parameters; see `Parametric.state`."""
        check_fitted(self, "columns_")
        transform = self.transform_
        return {
            "columns": self.columns_,
            "unexplained": np.array(self.unexplained_),
            "scale": np.array([transform.side, transform.limit, transform.span]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return the model of a state; see `Parametric.from_state`."""
        model = cls()
        model.columns_ = take_array(state, "columns", 2)
        model.unexplained_ = float(take_array(state, "unexplained", 0))
        scale = take_array(state, "scale", 1)
        if model.columns_.shape[0] < 1 or model.columns_.shape[1] < 2:
            raise InputError(f"'columns' have shape {model.columns_.shape}; at least (1, 2)")
        if scale.shape != (3,) or scale[0] not in (-1.0, 0.0, 1.0) or scale[2] <= 0:
            raise InputError(f"'scale' is {scale.tolist()}; side -1, 0 or 1, limit, span above 0")
        if model.unexplained_ < 0:
            raise InputError(f"'unexplained' is {model.unexplained_}; a number from 0 up")
        model.transform_ = TargetTransform(int(scale[0]), float(scale[1]), float(scale[2]))
        return model


def columns_of(mean: FloatArray, covariance: FloatArray, center: FloatArray) -> FloatArray:
    """Return what a constant of 1 and every column add to mean, variance and directions.

    ``mean`` and ``covariance`` are those of the weights of a constant and of columns less
    ``center``. The covariance's largest directions are kept, and the variances of the rest.
    """
    sizes, directions = np.linalg.eigh(covariance)
    kept = directions[:, -_RANK:] * np.sqrt(np.maximum(sizes[-_RANK:], 0.0))
    dropped = directions[:, :-_RANK] ** 2 @ np.maximum(sizes[:-_RANK], 0.0)
    # (x - c)^2 is linear in an x of 0 or 1.
    rest = dropped * np.append(1.0, 1.0 - 2.0 * center)
    rest[0] += dropped[1:] @ center**2
    linear = np.column_stack([mean, kept])
    linear[0] -= center @ linear[1:]
    columns: FloatArray = np.insert(linear, 1, rest, axis=1)
    return columns


def _prior_root(priors: Sequence[PriorCovariance], deviations: FloatArray) -> FloatArray:
    """Return a root of the prior covariance of the weights of a constant and of the columns.

    ``deviations`` are those of the constant, the priors' factors, and the residuals.
    """
    terms = zip(deviations[1:-1] ** 2, priors, strict=True)
    sizes, directions = np.linalg.eigh(sum(factor * prior.covariance for factor, prior in terms))
    n = len(sizes)
    root = np.zeros((n + 1, n + 1))
    root[0, 0] = deviations[0]
    root[1:, 1:] = directions * np.sqrt(np.maximum(sizes, 0.0))
    return root


def _prior(priors: Sequence[PriorCovariance]) -> LogNormalPrior:
    factors = [0.5 * prior.log_factor for prior in priors]
    spreads = [0.5 * prior.log_deviation for prior in priors]
    return LogNormalPrior(
        logs=np.array([_CONSTANT, *factors, _UNEXPLAINED]),
        deviations=np.array([1.0, *spreads, _DEVIATION]),
        bounds=[(_CONSTANT, _CONSTANT), *[_BOUNDS] * len(priors), (_BOUNDS[0], 0.0)],
    )


def _one_sign(
    mean: FloatArray, covariance: FloatArray, steps: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and covariance given that no step has another sign than the sum of all."""
    of_steps = covariance[np.ix_(steps, steps)].copy()
    of_steps[np.diag_indices_from(of_steps)] += _JITTER * np.trace(of_steps) / len(of_steps)
    factor = cholesky(of_steps, lower=True)
    whitening = solve_triangular(factor, np.eye(len(factor)), lower=True)
    sign = -1.0 if mean[steps].sum() < 0 else 1.0
    nearest = sign * nnls(whitening, whitening @ (sign * mean[steps]))[0]
    moved = mean + covariance[:, steps] @ cho_solve((factor, True), nearest - mean[steps])
    moved[steps] = nearest
    return moved, _given(covariance, np.flatnonzero(steps)[nearest == 0.0])


def _given(covariance: FloatArray, known: FloatArray) -> FloatArray:
    """Return the covariance given that the weights at some positions are known."""
    if not len(known):
        return covariance
    theirs = covariance[np.ix_(known, known)].copy()
    theirs[np.diag_indices_from(theirs)] *= 1.0 + _JITTER
    factor = cho_factor(theirs, lower=True)
    left: FloatArray = covariance - covariance[:, known] @ cho_solve(factor, covariance[known])
    return left
